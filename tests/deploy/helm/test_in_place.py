"""What the chart says of the exporter, held to a real one: its command, its probes, and the rights
that each mode gives it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.helm.chart import rendered
from tests.integration.exporter import Exporter
from tests.integration.namespaces import WORKERS_USER, Start, start
from tests.integration.programs import ROOT, Program, free_port
from tests.integration.waiting import PATIENCE

pytestmark = pytest.mark.integration
__all__ = ["start"]

#: What is read of a process beside its status: PSS, pid namespace, its container's name for its
#: host, open descriptors.
READ = """
import json, sys
from celery_memory_exporter.common import procfs
from celery_memory_exporter.sources import process_table
pid = int(sys.argv[1])
print(json.dumps({
    "pss": process_table.shared_memory(pid) is not None,
    "namespace": procfs.pid_namespace(pid) is not None,
    "hostname": procfs.read_text(f"/proc/{pid}/root/etc/hostname") is not None,
    "descriptors": procfs.open_fds(pid) is not None,
    "rss": procfs.status(pid).rss_bytes is not None,
}))
"""


def status(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", None, PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def contained(case: str, folder: Path) -> Exporter:
    """The exporter by its container's command and environment, with a broker that is not there
    where it is to have one."""
    container = rendered(case).container()
    *command, path = container["command"]
    file = folder / Path(path).name
    file.write_text(rendered(case).all("ConfigMap")[0]["data"][file.name])
    exporter = Exporter(folder / "log", None)
    exporter.command = [str(Path(sys.executable).parent / command[0]), *command[1:], str(file)]
    given = {
        "CELERY_MEMORY_LISTEN_ADDRESS": f"127.0.0.1:{exporter.port}",
        "CELERY_MEMORY_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0",
    }
    exporter.environment |= {each["name"]: given[each["name"]] for each in container["env"]}
    return exporter


@pytest.mark.parametrize(("case", "readiness"), [("default", 503), ("daemonset", 200)])
def test_a_real_exporter_answers_the_probes(
    case: str, readiness: int, start: Start[Exporter], tmp_path: Path
) -> None:
    """Alive in any case; not ready without its broker, where it has one."""
    exporter = start(contained(case, tmp_path))
    container = rendered(case).container()
    assert status(exporter.port, container["livenessProbe"]["httpGet"]["path"]) == 200
    assert status(exporter.port, container["readinessProbe"]["httpGet"]["path"]) == readiness
    assert status(exporter.port, "/metrics") == 200


def as_container(context: dict[str, Any], command: list[str]) -> list[str]:
    """The command as a container runtime runs it: capabilities are bounded, and none is ambient."""
    added = [each.lower() for each in context["capabilities"].get("add", [])]
    bound = ",".join(["-all", *(f"+{each}" for each in added)])
    identity = [
        "--reuid",
        str(context["runAsUser"]),
        "--regid",
        str(context["runAsUser"]),
        "--clear-groups",
    ]
    privileges = [] if context["allowPrivilegeEscalation"] else ["--no-new-privs"]
    return [
        "setpriv",
        *identity,
        *privileges,
        "--inh-caps",
        "-all",
        "--bounding-set",
        bound,
        *command,
    ]


def seen(
    reader: dict[str, Any], target: dict[str, Any], start: Start[Program], folder: Path
) -> set[str]:
    """What a container with these rights reads of a process of one with those."""
    asleep = start(Program(as_container(target, ["sleep", "infinity"]), folder / "target"))
    # The process is the target's only when setpriv has become it.
    waiting = [
        "sh",
        "-c",
        f"until grep -qx sleep /proc/{asleep.pid}/comm; do :; done; exec "
        f"{shlex.join(_reader(asleep.pid))}",
    ]
    done = subprocess.run(
        as_container(reader, waiting),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        cwd=ROOT,
    )
    return {what for what, is_seen in json.loads(done.stdout).items() if is_seen}


def _reader(pid: int) -> list[str]:
    return [sys.executable, "-c", READ, str(pid)]


def rights(case: str, **changed: Any) -> dict[str, Any]:
    spec, container = rendered(case).pod()["spec"], rendered(case).container()
    return {**spec["securityContext"], **container["securityContext"], **changed}


ALL = {"rss", "pss", "namespace", "hostname", "descriptors"}
OF_A_WORKER = {
    "runAsUser": WORKERS_USER,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


def test_the_daemonset_reads_what_its_capability_is_for(
    start: Start[Program], tmp_path: Path
) -> None:
    assert seen(rights("daemonset"), OF_A_WORKER, start, tmp_path) == ALL - {"descriptors"}


def test_descriptors_need_another_capability(start: Start[Program], tmp_path: Path) -> None:
    both = {"drop": ["ALL"], "add": ["SYS_PTRACE", "DAC_READ_SEARCH"]}
    assert seen(rights("daemonset", capabilities=both), OF_A_WORKER, start, tmp_path) == ALL


def test_without_the_capability_there_is_the_status_alone(
    start: Start[Program], tmp_path: Path
) -> None:
    assert seen(
        rights("daemonset", capabilities={"drop": ["ALL"]}), OF_A_WORKER, start, tmp_path
    ) == {"rss"}


@pytest.mark.parametrize(
    ("workers", "expected"), [([], {"pss", "namespace", "hostname"}), (["CHOWN"], set())]
)
def test_the_sidecar_reads_a_process_of_its_own_user_unless_the_worker_can_do_more(
    workers: list[str], expected: set[str], start: Start[Program], tmp_path: Path
) -> None:
    """As root, whose files this test's Python may be; the kernel's rule is the same for each
    user."""
    worker = rights("sidecar", runAsUser=0, capabilities={"drop": ["ALL"], "add": workers})
    # Its status and descriptors are open to its user in any case.
    assert seen(rights("sidecar", runAsUser=0), worker, start, tmp_path) == expected | {
        "rss",
        "descriptors",
    }
