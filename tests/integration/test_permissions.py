"""The exporter as the systemd unit starts it, as a real unprivileged user beside workers of others:
what it sees, and what it says when it does not."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from tests.deploy import systemd_unit
from tests.integration.exporter import Exporter
from tests.integration.figures import wait_for_value
from tests.integration.namespaces import EXPORTERS_USER, WORKERS_USER, Start, as_user, start
from tests.integration.servers import Server
from tests.integration.worker import Worker

pytestmark = pytest.mark.integration
__all__ = ["start"]

INSTALLED, CONFIGURED = "/opt/celery-memory-exporter/bin", "/etc/celery-memory-exporter"
#: What the unit's ProtectProc= would mount.
PROTECT_PROC = {"default": 0, "noaccess": 1, "invisible": 2, "ptraceable": 4}
DENIED = "celery_memory_exporter_access_denied"


@pytest.fixture
def worker(start: Start[Worker], broker: Server, tmp_path: Path) -> Worker:
    """Without the agent: all that is told of it comes from the process table."""
    worker = Worker(
        tmp_path / "worker.log", broker, f"p{broker.port}-{tmp_path.name}", "-c", "1", agent=False
    )
    worker.command = as_user(WORKERS_USER, worker.command)
    return start(worker)


def exporter_of(
    folder: Path, *drop_ins: str, user: int = EXPORTERS_USER, protect_proc: str = ""
) -> Exporter:
    """By the unit's own command, user, rights and view of ``/proc``, with the paths of this
    checkout."""
    service = systemd_unit.read(systemd_unit.UNIT, *map(systemd_unit.drop_in, drop_ins))["Service"]
    (command,) = service["ExecStart"]
    assert command.startswith(INSTALLED)
    assert CONFIGURED in command
    folder.chmod(0o755)
    (folder / "config.yaml").write_text(
        yaml.safe_dump(
            {"processes": {"interval_seconds": 0.5, "shared_memory_interval_seconds": 5}}
        )
    )
    command = command.replace(INSTALLED, str(Path(sys.executable).parent)).replace(
        CONFIGURED, str(folder)
    )
    exporter = Exporter(folder / "exporter.log", None)
    exporter.environment["CELERY_MEMORY_LISTEN_ADDRESS"] = f"127.0.0.1:{exporter.port}"
    capabilities = [
        "+" + each.removeprefix("CAP_").lower() for each in service["AmbientCapabilities"]
    ]
    hidepid = PROTECT_PROC[protect_proc or service["ProtectProc"][-1]]
    exporter.command = as_user(
        user,
        shlex.split(command),
        folder,
        hidepid=hidepid,
        capabilities="".join(f",{each}" for each in capabilities),
    )
    return exporter


def resident(exporter: Exporter, worker: Worker) -> float | None:
    return exporter.value("celery_worker_memory_rss_bytes", worker=worker.nodename, process="main")


def families(exporter: Exporter, worker: Worker) -> set[str]:
    return {
        family for family, labels in exporter.samples() if ("worker", worker.nodename) in labels
    }


def test_the_unit_reads_another_users_worker_without_any_right(
    worker: Worker, start: Start[Exporter], tmp_path: Path
) -> None:
    exporter = start(exporter_of(tmp_path))
    assert psutil.Process(exporter.pid).uids().real == EXPORTERS_USER
    assert psutil.Process(worker.pid).uids().real == WORKERS_USER
    really = psutil.Process(worker.pid).memory_info().rss
    assert resident(exporter, worker) == pytest.approx(really, rel=0.1)
    # PSS, USS and descriptors are for the same user and CAP_SYS_PTRACE: absent, and not zero.
    denied = {
        "celery_worker_memory_pss_bytes",
        "celery_worker_memory_uss_bytes",
        "celery_worker_open_fds",
    }
    assert not denied & families(exporter, worker)
    assert exporter.by_label(DENIED, "what") == {"processes": 0, "shared_memory": 1}
    assert exporter.text.count("PSS and USS of a worker's process may not be read") == 1


def test_the_drop_in_with_the_capability_reads_pss_too(
    worker: Worker, start: Start[Exporter], tmp_path: Path
) -> None:
    exporter = start(exporter_of(tmp_path, "shared-memory"))
    assert psutil.Process(exporter.pid).uids().real == EXPORTERS_USER
    assert (
        exporter.value("celery_worker_memory_pss_bytes", worker=worker.nodename, process="main")
        or 0
    ) > 0


def test_the_drop_in_with_the_workers_user_reads_pss_too(
    worker: Worker, start: Start[Exporter], tmp_path: Path
) -> None:
    exporter = start(exporter_of(tmp_path, "workers-user", user=WORKERS_USER))
    shown = families(exporter, worker)
    assert {
        "celery_worker_memory_rss_bytes",
        "celery_worker_memory_pss_bytes",
        "celery_worker_open_fds",
    } <= shown
    assert exporter.by_label(DENIED, "what") == {"processes": 0, "shared_memory": 0}


@pytest.mark.parametrize("protect_proc", ["noaccess", "invisible", "ptraceable"])
def test_what_the_unit_must_not_say_hides_the_workers_and_that_is_told(
    worker: Worker, start: Start[Exporter], tmp_path: Path, protect_proc: str
) -> None:
    exporter = start(exporter_of(tmp_path, protect_proc=protect_proc))
    wait_for_value(exporter, 1, DENIED, what="processes")
    assert families(exporter, worker) == set()
    assert exporter.value("celery_memory_exporter_source_up", source="processes") == 1, (
        "it can be read; there is nothing in it"
    )
    assert exporter.text.count("hidepid") == 1
