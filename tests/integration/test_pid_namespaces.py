"""Worker and exporter in different pid namespaces of one machine, as containers are: a process has
two pids, and is shown once."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import yaml

from celery_memory_exporter.common import procfs
from tests.integration.conftest import Exporter, Server, Worker, wait_for
from tests.integration.namespaces import EXPORTERS_USER, Contained, Start, as_user, start

pytestmark = pytest.mark.integration
__all__ = ["start"]

RSS = "celery_worker_memory_rss_bytes"
#: What only the agent tells, and what only the process table does.
BLOCKS, PSS = "celery_worker_python_blocks", "celery_worker_memory_pss_bytes"


@pytest.fixture
def exporter(broker: Server, tmp_path: Path) -> Exporter:
    tmp_path.chmod(0o755)
    file = tmp_path / "config.yaml"
    file.write_text(
        yaml.safe_dump(
            {"processes": {"interval_seconds": 0.5, "shared_memory_interval_seconds": 5}}
        )
    )
    return Exporter(tmp_path / "exporter.log", broker.url, "--config", str(file))


def container(
    folder: Path, broker: Server, name: str, *options: str, **environment: str
) -> tuple[Worker, Contained]:
    """A worker with the agent. Without ``-n`` it is named after its container's hostname."""
    worker = Worker(folder / f"{name}.log", broker, name, "-c", "1", *options, **environment)
    place = worker.command.index("-n")
    del worker.command[place : place + 2]
    worker.nodename = f"celery@{name}"
    return worker, Contained(worker, name)


def shown(exporter: Exporter, family: str, worker: Worker) -> dict[str, float]:
    return exporter.by_label(family, "process", worker=worker.nodename)


def workers(exporter: Exporter, *names: str) -> list[str]:
    """Workers on hosts with these in their names."""
    return sorted(
        each
        for each in exporter.by_label("celery_worker_up", "worker")
        if any(name in each for name in names)
    )


def test_a_contained_workers_processes_are_matched_and_shown_once(
    start: Start[Exporter], exporter: Exporter, broker: Server, tmp_path: Path
) -> None:
    start(exporter)
    worker, contained = container(tmp_path, broker, f"inside-{broker.port}")
    start(contained)
    outside = contained.inner()
    both = {"main", "0"}
    wait_for(
        lambda: (
            shown(exporter, BLOCKS, worker).keys() == shown(exporter, PSS, worker).keys() == both
        ),
        "agent and table",
    )
    status = procfs.status(outside.pid)
    assert status is not None
    assert status.namespace_pids[-1] == 1, "inside it is process 1"
    assert outside.pid != 1
    assert shown(exporter, RSS, worker)["main"] == pytest.approx(
        outside.memory_info().rss, rel=0.05
    )
    assert sum(shown(exporter, RSS, worker).values()) == pytest.approx(
        sum(each.memory_info().rss for each in [outside, *outside.children()]), rel=0.05
    )
    assert workers(exporter, worker.queue) == [worker.nodename]


def test_a_name_that_was_guessed_from_outside_does_not_stay_beside_the_workers_own(
    start: Start[Exporter], exporter: Exporter, broker: Server, tmp_path: Path
) -> None:
    # Its agent reports some seconds after its process is there: until then its name is a guess.
    worker, contained = container(
        tmp_path, broker, f"inner-{broker.port}", CELERY_MEMORY_INTERVAL_SECONDS="3"
    )
    outer = f"outer-{broker.port}"
    command = as_user(EXPORTERS_USER, exporter.command, tmp_path)
    exporter.command = [
        "unshare",
        "--uts",
        "sh",
        "-c",
        f'hostname {outer}; exec "$@"',
        "sh",
        *command,
    ]
    start(exporter)
    start(contained)
    wait_for(
        lambda: any(outer in each for each in workers(exporter, outer)), "the name that is guessed"
    )
    wait_for(
        lambda: workers(exporter, outer, worker.queue) == [worker.nodename],
        "its own name, and no other",
    )


def test_workers_that_are_all_process_1_are_told_apart_without_the_right_to_look(
    start: Start[Exporter], exporter: Exporter, broker: Server, tmp_path: Path
) -> None:
    pairs = [container(tmp_path, broker, f"{name}-{broker.port}") for name in ("first", "second")]
    for _, contained in pairs:
        start(contained)
    exporter.command = as_user(EXPORTERS_USER, exporter.command, tmp_path)
    start(exporter)
    for worker, contained in pairs:
        wait_for(
            lambda worker=worker: shown(exporter, BLOCKS, worker).keys() == {"main", "0"},
            "the agent",
        )  # type: ignore[misc]
        inner = contained.inner()
        assert procfs.status(inner.pid) is not None
        child = inner.children()[0]
        wait_for(
            lambda worker=worker, child=child: (
                shown(exporter, RSS, worker).get("0")  # type: ignore[misc]
                == pytest.approx(child.memory_info().rss, rel=0.01)
            ),
            "the table's figure",
        )
    assert len(workers(exporter, *(worker.queue for worker, _ in pairs))) == 2


def test_an_exporter_in_a_container_shows_a_worker_outside_by_its_reports(
    start: Start[Exporter], exporter: Exporter, broker: Server, tmp_path: Path
) -> None:
    contained = Contained(exporter, f"exporter-{broker.port}")
    start(contained)
    worker = start(Worker(tmp_path / "worker.log", broker, f"beside-{broker.port}", "-c", "1"))
    both = {"main", "0"}
    wait_for(
        lambda: (
            shown(exporter, BLOCKS, worker).keys() == shown(exporter, RSS, worker).keys() == both
        ),
        "the reports",
    )
    assert shown(exporter, RSS, worker)["main"] == pytest.approx(
        psutil.Process(worker.pid).memory_info().rss, rel=0.1
    )
    assert not shown(exporter, PSS, worker), "its process is not in the exporter's table"
    assert workers(exporter, worker.queue) == [worker.nodename]
