"""The agent in real workers of every pool. Runs on each Python and on the oldest and the newest
Celery."""

from __future__ import annotations

import contextlib
import os
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.figures import (
    no_agent_trouble,
    of_task,
    per_run,
    succeeded,
    wait_for_growth,
    wait_for_processes,
    wait_for_runs,
    wait_for_value,
)
from tests.integration.programs import LOOPBACK, free_port
from tests.integration.stage import Stage
from tests.integration.waiting import at_least, contains, equals, wait_for

pytestmark = pytest.mark.integration


def test_prefork_every_figure(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "4")
    wait_for_processes(exporter, worker, "main", "0", "1", "2", "3")
    stage.send(worker, "leak", 1, times=100)
    wait_for_growth(exporter, worker, 100)
    stage.send(worker, "leak", 1, times=400)
    stage.send(worker, "noop", times=500)
    wait_for_runs(exporter, worker, "leak", 500)
    wait_for_runs(exporter, worker, "noop", 500)
    wait_for_growth(exporter, worker, 500)
    # The main process counts runs, and each child tells what it measured: a report may be between.
    labels = of_task(worker, "noop")
    wait_for_value(exporter, 500, "celery_task_memory_delta_bytes_bucket", le="+Inf", **labels)
    wait_for_value(exporter, 500, "celery_task_memory_peak_bytes_count", **labels)
    wait_for_value(exporter, 500, "celery_task_runtime_count", **labels)
    of_all = {"worker": worker.nodename}
    wait_for_value(exporter, 4, "celery_worker_children_started_total", **of_all)
    statm = Path(f"/proc/{worker.pid}/statm")
    wait_for(
        lambda: (
            exporter.value("celery_worker_memory_rss_bytes", process="main", **of_all),
            int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        ),
        "the resident memory as it is",
        lambda seen: seen[0] == pytest.approx(seen[1], abs=1024 * 1024),
    )
    assert no_agent_trouble(exporter, worker)


def test_outcomes_of_runs(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1")
    stage.send(worker, "fail", times=7)
    stage.send(worker, "retry_once", times=3)
    wait_for_runs(exporter, worker, "retry_once", 3)
    queue = {"queue_name": worker.queue}
    failed = {"exception": "ValueError", **queue, **of_task(worker, "fail")}
    wait_for_value(exporter, 7, "celery_task_failed_total", **failed)
    retried = {**queue, **of_task(worker, "retry_once")}
    wait_for_value(exporter, 3, "celery_task_retried_total", **retried)
    assert abs(per_run(exporter, worker, "celery_task_memory_retained_bytes", "fail")) < 100, (
        "what an exception holds is not kept"
    )


def test_totals_survive_recycled_children_and_a_restarted_exporter(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "2", "--max-tasks-per-child", "30")
    stage.send(worker, "noop", times=150)
    wait_for_runs(exporter, worker, "noop", 150)
    exporter.stop()
    again = stage.exporter(port=exporter.port)
    stage.send(worker, "noop", times=150)
    wait_for_runs(again, worker, "noop", 300)
    ended = wait_for(
        lambda: again.by_label(
            "celery_worker_children_exited_total", "reason", worker=worker.nodename
        ),
        "recycled children",
        lambda ended: sum(ended.values()) >= 8,
    )
    assert ended.keys() == {"tasks"}
    wait_for_processes(again, worker, "main", "0", "1")
    assert no_agent_trouble(again, worker)


@pytest.mark.parametrize("pool", ["solo", "threads", "gevent", "eventlet"])
def test_pools_without_children(stage: Stage, pool: str) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-P", pool, "-c", "4")
    stage.send(worker, "leak", 1, times=200)
    stage.send(worker, "fail", times=5)
    wait_for_runs(exporter, worker, "leak", 200)
    labels = {"worker": worker.nodename}
    failed = {"exception": "ValueError", **of_task(worker, "fail")}
    wait_for_value(exporter, 5, "celery_task_failed_total", **failed)
    wait_for_growth(exporter, worker, 200)
    wait_for_processes(exporter, worker, "main")
    assert exporter.by_label("celery_worker_info", "pool", **labels).keys() == {pool}
    if pool == "solo":
        measured = {"le": "+Inf", **of_task(worker, "leak")}
        wait_for_value(exporter, 200, "celery_task_memory_delta_bytes_bucket", **measured)
    assert no_agent_trouble(exporter, worker)


def test_results_and_arguments_are_not_retained(stage: Stage, broker_url_as_backend: str) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1", TEST_BACKEND_URL=broker_url_as_backend)
    rows = ["x" * 100 + str(number) for number in range(70_000)]
    stage.send(worker, "noop", times=101)
    stage.send(worker, "big_result", times=31)
    stage.send(worker, "big_argument", rows, times=31)
    for task, runs in (("noop", 101), ("big_result", 31), ("big_argument", 31)):
        wait_for_runs(exporter, worker, task, runs)
        left = per_run(exporter, worker, "celery_task_memory_retained_bytes", task, runs - 1)
        assert abs(left) < 1024, task


def test_twenty_objects_kept_a_run_are_twenty_blocks_a_run(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "2")
    for _ in range(101):
        stage.send(worker, "keep_twenty")
        stage.send(worker, "noop")
    wait_for_runs(exporter, worker, "keep_twenty", 101)
    wait_for_runs(exporter, worker, "noop", 101)
    kept, none = (
        per_run(exporter, worker, "celery_task_memory_retained_blocks", task, 99)
        for task in ("keep_twenty", "noop")
    )
    # Within a block: the list that they are kept in grows in steps of an eighth, each time in one
    # block, and Python 3.10 gives each function a cache at its 1,024th call, Celery's own functions
    # in whichever runs these are.
    assert abs(kept - 20) < 1
    assert abs(none) < 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_ends_while_the_worker_shuts_down_is_counted(stage: Stage, pool: str) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "2", "-P", pool)
    stage.send(worker, "sleep", 4, times=2)
    wait_for_value(exporter, 2, "celery_task_started_total", **of_task(worker, "sleep"))
    worker.stop()
    # The worker's last words.
    wait_for_runs(exporter, worker, "sleep", 2)
    wait_for_value(exporter, 0, "celery_worker_up", worker=worker.nodename)
    assert exporter.value("celery_agent_errors_total", worker=worker.nodename) == 0


def test_the_task_that_a_killed_child_was_in_is_named(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "2")
    stage.send(worker, "noop", times=20)
    stage.send(worker, "die", times=2)
    wait_for_value(exporter, 2, "celery_task_lost_total", reason="signal", **of_task(worker, "die"))
    stage.send(worker, "noop", times=20)
    wait_for_runs(exporter, worker, "noop", 40)
    labels = {"worker": worker.nodename}
    wait_for_value(exporter, 2, "celery_worker_children_exited_total", reason="signal", **labels)
    wait_for_value(exporter, 4, "celery_worker_children_started_total", **labels)


def test_a_child_over_its_memory_limit_is_told_from_one_over_its_tasks(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1", "--max-memory-per-child", "300000")
    stage.send(worker, "spike", 400)
    labels = {"worker": worker.nodename}
    wait_for_value(exporter, 1, "celery_worker_children_exited_total", reason="memory", **labels)
    assert exporter.value("celery_worker_child_memory_limit_bytes", **labels) == 300_000 * 1024
    wait_for(
        lambda: exporter.value("celery_task_memory_peak_bytes_sum", **of_task(worker, "spike")),
        "the peak of the run",
        at_least(350 * 1024 * 1024),
    )


def test_a_task_that_forks_finds_its_process_single_threaded(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1", PYTHONWARNINGS="error::DeprecationWarning:tests")
    for round_ in range(1, 4):
        stage.send(worker, "fork_twice")
        wait_for_runs(exporter, worker, "fork_twice", round_)
        # Long enough for the helper to have come up behind the run.
        wait_for(
            lambda: exporter.value("celery_worker_threads", worker=worker.nodename, process="0"),
            "the helper",
            at_least(2),
        )
    assert no_agent_trouble(exporter, worker)


def test_a_task_that_closes_the_agents_descriptors_hurts_nobody(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1")
    stage.send(worker, "noop", times=3)
    wait_for_runs(exporter, worker, "noop", 3)
    stage.send(worker, "close_all_descriptors")
    stage.send(worker, "noop", times=3)
    wait_for(lambda: worker.logged("noop"), "six runs in the worker's log", equals(6))
    assert "memory agent failed" not in worker.text


@contextlib.contextmanager
def hanging_up(port: int) -> Iterator[list[str]]:
    """A port at which each client is hung up on; who has called."""
    calls: list[str] = []

    class HangUp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            calls.append(str(self.client_address))

    with socketserver.ThreadingTCPServer((LOOPBACK, port), HangUp) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield calls
        server.shutdown()
        thread.join()


def test_reports_to_a_broker_that_is_not_there_cost_no_task(stage: Stage) -> None:
    port = free_port()
    worker = stage.worker("-c", "1", CELERY_MEMORY_EVENTS_URL=f"redis://{LOOPBACK}:{port}/0")
    stage.send(worker, "noop", times=50)
    wait_for(lambda: worker.logged("noop"), "50 runs in the worker's log", equals(50))
    wait_for(lambda: worker.text, "the one warning", contains("memory agent cannot report"))
    assert f"s to redis://{LOOPBACK}:{port}/0" in worker.text, "it said so at start"
    # More reports, of which nothing is to be said.
    with hanging_up(port) as calls:
        wait_for(lambda: len(calls), "three more reports", at_least(3))
        assert worker.text.count("memory agent cannot report") == 1


def test_the_agent_can_be_turned_off(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1", CELERY_MEMORY_ENABLED="0")
    stage.send(worker, "noop", times=5)
    wait_for(lambda: worker.logged("noop"), "five runs in the worker's log", equals(5))
    assert succeeded(exporter, worker, "noop") is None


@pytest.fixture
def broker_url_as_backend(stage: Stage) -> str:
    return stage.broker.url.replace("/0", "/1")


def test_the_python_under_test(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-P", "solo")
    version = ".".join(map(str, sys.version_info[:3]))
    wait_for(
        lambda: {
            *exporter.by_label("celery_worker_info", "python_version", worker=worker.nodename)
        },
        "the worker's Python version",
        equals({version}),
    )
