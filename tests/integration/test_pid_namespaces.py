"""Worker and exporter in different pid namespaces of one machine, as containers are: a process has
two pids, and is shown once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from celery_memory_exporter.common import procfs
from tests.integration.exporter import Exporter
from tests.integration.namespaces import EXPORTERS_USER, Contained, Start, as_user, start
from tests.integration.programs import suspended
from tests.integration.servers import Server
from tests.integration.waiting import equals, wait_for
from tests.integration.worker import Worker

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


def wait_for_both(exporter: Exporter, worker: Worker, *families: str) -> None:
    """Its main process and its child, in each of the families."""
    wait_for(
        lambda: [shown(exporter, family, worker).keys() for family in families],
        f"main and 0 of {worker.nodename} in {families}",
        equals([{"main", "0"}] * len(families)),
    )


def wait_for_memory(
    exporter: Exporter, worker: Worker, process: str, really: Callable[[], int], share: float
) -> None:
    """Its resident memory is shown as it is, up to so large a share of it."""
    wait_for(
        lambda: (shown(exporter, RSS, worker).get(process), really()),
        f"the resident memory of {process} of {worker.nodename}, as (shown, real)",
        lambda seen: seen[0] == pytest.approx(seen[1], rel=share),
    )


def test_a_contained_workers_processes_are_matched_and_shown_once(
    start: Start[Exporter], exporter: Exporter, broker: Server, tmp_path: Path
) -> None:
    start(exporter)
    worker, contained = container(tmp_path, broker, f"inside-{broker.port}")
    start(contained)
    outside = contained.inner()
    wait_for_both(exporter, worker, BLOCKS, PSS)
    status = procfs.status(outside.pid)
    assert status is not None
    assert status.namespace_pids[-1] == 1, "inside it is process 1"
    assert outside.pid != 1
    (child,) = outside.children()
    for process, each in (("main", outside), ("0", child)):
        wait_for_memory(exporter, worker, process, lambda each=each: each.memory_info().rss, 0.05)
    assert workers(exporter, worker.queue) == [worker.nodename]


def test_a_name_that_was_guessed_from_outside_does_not_stay_beside_the_workers_own(
    start: Start[Exporter], exporter: Exporter, broker: Server, tmp_path: Path
) -> None:
    worker, contained = container(tmp_path, broker, f"inner-{broker.port}")
    outer = f"outer-{broker.port}"
    script = f'hostname {outer}; exec "$@"'
    command = as_user(EXPORTERS_USER, exporter.command, tmp_path)
    exporter.command = ["unshare", "--uts", "sh", "-c", script, "sh", *command]
    start(exporter)
    start(contained)
    inner = contained.inner()
    wait_for(inner.cmdline, "the worker's own command line", lambda words: "celery" in words)
    # Before its agent has reported, its name is a guess.
    with suspended(inner.pid):
        wait_for(lambda: workers(exporter, outer), "the name that is guessed")
    wait_for(
        lambda: workers(exporter, outer, worker.queue),
        "its own name, and no other",
        equals([worker.nodename]),
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
        wait_for_both(exporter, worker, BLOCKS)
        inner = contained.inner()
        assert procfs.status(inner.pid) is not None
        (child,) = inner.children()
        wait_for_memory(exporter, worker, "0", lambda child=child: child.memory_info().rss, 0.01)
    assert len(workers(exporter, *(worker.queue for worker, _ in pairs))) == 2


def test_an_exporter_in_a_container_shows_a_worker_outside_by_its_reports(
    start: Start[Exporter], exporter: Exporter, broker: Server, tmp_path: Path
) -> None:
    contained = Contained(exporter, f"exporter-{broker.port}")
    start(contained)
    worker = start(Worker(tmp_path / "worker.log", broker, f"beside-{broker.port}", "-c", "1"))
    wait_for_both(exporter, worker, BLOCKS, RSS)
    main = psutil.Process(worker.pid)
    wait_for_memory(exporter, worker, "main", lambda: main.memory_info().rss, 0.1)
    assert not shown(exporter, PSS, worker), "its process is not in the exporter's table"
    assert workers(exporter, worker.queue) == [worker.nodename]
