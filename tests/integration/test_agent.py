"""The agent in real workers of every pool. Runs on each Python and on the oldest and the newest
Celery."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import pytest

from tests.integration.conftest import Exporter, Stage, Worker, wait_for

pytestmark = pytest.mark.integration
ENTRY = "tests.integration.tasks.MyCacheEntry"


def name_of(task: str) -> str:
    return f"tests.integration.tasks.{task}"


def succeeded(exporter: Exporter, worker: Worker, task: str) -> float | None:
    return exporter.value("celery_task_succeeded_total", worker=worker.nodename, name=name_of(task))


def wait_for_runs(exporter: Exporter, worker: Worker, task: str, runs: int) -> None:
    wait_for(lambda: (succeeded(exporter, worker, task) or 0) >= runs, f"{runs} runs of {task}")
    assert succeeded(exporter, worker, task) == runs


def wait_for_growth(exporter: Exporter, worker: Worker, entries: int) -> None:
    """By the true number."""
    seen: list[float | None] = []

    def reached() -> bool:
        seen.append(
            exporter.value(
                "celery_worker_objects_growth", worker=worker.nodename, object_type=ENTRY
            )
        )
        return seen[-1] == entries

    try:
        wait_for(reached, f"{entries} entries")
    except AssertionError as error:
        raise AssertionError(f"{error}; seen last: {seen[-3:]}") from None


def no_agent_trouble(exporter: Exporter, worker: Worker) -> bool:
    return (
        exporter.value("celery_agent_errors_total", worker=worker.nodename) == 0
        and "memory agent failed" not in worker.text
    )


def test_prefork_every_figure(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "4")
    processes = wait_for(
        lambda: (
            len(
                found := exporter.by_label(
                    "celery_worker_memory_rss_bytes", "process", worker=worker.nodename
                )
            )
            == 5
            and found
        ),
        "main and four slots",
    )
    assert set(processes) == {"main", "0", "1", "2", "3"}
    stage.send(worker, "leak", 1, times=100)
    wait_for_growth(exporter, worker, 100)
    stage.send(worker, "leak", 1, times=400)
    stage.send(worker, "noop", times=500)
    wait_for_runs(exporter, worker, "leak", 500)
    wait_for_runs(exporter, worker, "noop", 500)
    wait_for_growth(exporter, worker, 500)
    labels = {"worker": worker.nodename, "name": name_of("noop")}
    assert exporter.value("celery_task_memory_delta_bytes_bucket", le="+Inf", **labels) == 500
    assert exporter.value("celery_task_memory_peak_bytes_count", **labels) == 500
    assert exporter.value("celery_task_runtime_count", **labels) == 500
    assert exporter.value("celery_worker_children_started_total", worker=worker.nodename) == 4
    statm = Path(f"/proc/{worker.pid}/statm")
    rss = exporter.value("celery_worker_memory_rss_bytes", worker=worker.nodename, process="main")
    assert rss == pytest.approx(
        int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"), abs=1024 * 1024
    )
    assert no_agent_trouble(exporter, worker)


def test_outcomes_of_runs(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1")
    stage.send(worker, "fail", times=7)
    stage.send(worker, "retry_once", times=3)
    wait_for_runs(exporter, worker, "retry_once", 3)
    labels = {"worker": worker.nodename, "queue_name": worker.queue}
    assert (
        exporter.value(
            "celery_task_failed_total", name=name_of("fail"), exception="ValueError", **labels
        )
        == 7
    )
    assert exporter.value("celery_task_retried_total", name=name_of("retry_once"), **labels) == 3
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
    wait_for(
        lambda: (
            (
                again.value(
                    "celery_worker_children_exited_total", worker=worker.nodename, reason="tasks"
                )
                or 0
            )
            >= 8
        ),
        "recycled children",
    )
    assert again.by_label(
        "celery_worker_children_exited_total", "reason", worker=worker.nodename
    ).keys() == {"tasks"}
    slots = wait_for(
        lambda: (
            len(
                found := again.by_label(
                    "celery_worker_memory_rss_bytes", "process", worker=worker.nodename
                )
            )
            == 3
            and found
        ),
        "main and two slots",
    )
    assert set(slots) == {"main", "0", "1"}
    assert no_agent_trouble(again, worker)


@pytest.mark.parametrize("pool", ["solo", "threads", "gevent", "eventlet"])
def test_pools_without_children(stage: Stage, pool: str) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-P", pool, "-c", "4")
    stage.send(worker, "leak", 1, times=200)
    stage.send(worker, "fail", times=5)
    wait_for_runs(exporter, worker, "leak", 200)
    labels = {"worker": worker.nodename}
    failed = {"name": name_of("fail"), "exception": "ValueError", **labels}
    wait_for(lambda: exporter.value("celery_task_failed_total", **failed) == 5, "five failures")
    wait_for_growth(exporter, worker, 200)
    assert set(exporter.by_label("celery_worker_memory_rss_bytes", "process", **labels)) == {"main"}
    assert exporter.by_label("celery_worker_info", "pool", **labels).keys() == {pool}
    if pool == "solo":
        assert (
            exporter.value(
                "celery_task_memory_delta_bytes_bucket", le="+Inf", name=name_of("leak"), **labels
            )
            == 200
        )
    assert no_agent_trouble(exporter, worker)


def per_run(exporter: Exporter, worker: Worker, family: str, task: str) -> float:
    labels = {"worker": worker.nodename, "name": name_of(task)}
    # What runs left behind is told once a second.
    wait_for(
        lambda: exporter.value("celery_task_memory_retained_runs", **labels),
        f"what {task} left behind",
    )
    value, runs = (
        exporter.value(each, **labels) for each in (family, "celery_task_memory_retained_runs")
    )
    assert value is not None
    assert runs
    return value / runs


def test_results_and_arguments_are_not_retained(stage: Stage, broker_url_as_backend: str) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1", TEST_BACKEND_URL=broker_url_as_backend)
    rows = ["x" * 100 + str(number) for number in range(70_000)]
    stage.send(worker, "noop", times=101)
    stage.send(worker, "big_result", times=31)
    stage.send(worker, "big_argument", rows, times=31)
    for task, runs in (("noop", 101), ("big_result", 31), ("big_argument", 31)):
        wait_for_runs(exporter, worker, task, runs)
        assert abs(per_run(exporter, worker, "celery_task_memory_retained_bytes", task)) < 1024, (
            task
        )


def test_twenty_objects_kept_a_run_are_twenty_blocks_a_run(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "2")
    for _ in range(101):
        stage.send(worker, "keep_twenty")
        stage.send(worker, "noop")
    wait_for_runs(exporter, worker, "keep_twenty", 101)
    wait_for_runs(exporter, worker, "noop", 101)
    kept, none = (
        per_run(exporter, worker, "celery_task_memory_retained_blocks", task)
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
    labels = {"worker": worker.nodename, "name": name_of("sleep")}
    wait_for(
        lambda: exporter.value("celery_task_started_total", **labels) == 2, "both to have started"
    )
    worker.stop()
    wait_for(
        lambda: exporter.value("celery_task_succeeded_total", **labels) == 2,
        "the last words of the worker",
    )
    wait_for(
        lambda: exporter.value("celery_worker_up", worker=worker.nodename) == 0,
        "the process to be gone",
    )
    assert exporter.value("celery_agent_errors_total", worker=worker.nodename) == 0


def test_the_task_that_a_killed_child_was_in_is_named(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "2")
    stage.send(worker, "noop", times=20)
    stage.send(worker, "die", times=2)
    lost = {"worker": worker.nodename, "name": name_of("die"), "reason": "signal"}
    wait_for(lambda: exporter.value("celery_task_lost_total", **lost) == 2, "two lost runs")
    stage.send(worker, "noop", times=20)
    wait_for_runs(exporter, worker, "noop", 40)
    assert (
        exporter.value(
            "celery_worker_children_exited_total", worker=worker.nodename, reason="signal"
        )
        == 2
    )
    assert exporter.value("celery_worker_children_started_total", worker=worker.nodename) == 4


def test_a_child_over_its_memory_limit_is_told_from_one_over_its_tasks(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1", "--max-memory-per-child", "300000")
    stage.send(worker, "spike", 400)
    wait_for(
        lambda: (
            exporter.value(
                "celery_worker_children_exited_total", worker=worker.nodename, reason="memory"
            )
            == 1
        ),
        "a child recycled for its memory",
    )
    assert (
        exporter.value("celery_worker_child_memory_limit_bytes", worker=worker.nodename)
        == 300_000 * 1024
    )
    peaks = exporter.value(
        "celery_task_memory_peak_bytes_sum", worker=worker.nodename, name=name_of("spike")
    )
    assert peaks
    assert peaks > 350 * 1024 * 1024


def test_a_task_that_forks_finds_its_process_single_threaded(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1", PYTHONWARNINGS="error::DeprecationWarning:tests")
    for round_ in range(1, 4):
        stage.send(worker, "fork_twice")
        wait_for_runs(exporter, worker, "fork_twice", round_)
        # Long enough for the helper to have come up behind the run.
        wait_for(
            lambda: (
                (exporter.value("celery_worker_threads", worker=worker.nodename, process="0") or 0)
                >= 2
            ),
            "the helper",
        )
    assert no_agent_trouble(exporter, worker)


def test_a_task_that_closes_the_agents_descriptors_hurts_nobody(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1")
    stage.send(worker, "noop", times=3)
    wait_for_runs(exporter, worker, "noop", 3)
    stage.send(worker, "close_all_descriptors")
    stage.send(worker, "noop", times=3)
    wait_for(
        lambda: len(re.findall(r"tasks\.noop\[\S+\] succeeded", worker.text)) == 6,
        "six runs in the worker's log",
    )
    assert "memory agent failed" not in worker.text


def test_reports_to_a_broker_that_is_not_there_cost_no_task(stage: Stage) -> None:
    worker = stage.worker("-c", "1", CELERY_MEMORY_EVENTS_URL="redis://127.0.0.1:1/0")
    stage.send(worker, "noop", times=50)
    wait_for(lambda: worker.text.count("] succeeded") == 50, "50 runs in the worker's log")
    wait_for(lambda: "memory agent failed" in worker.text, "the one warning")
    time.sleep(3 * 1.0)  # three more intervals, in which nothing is to be said
    assert worker.text.count("memory agent failed") == 1


def test_the_agent_can_be_turned_off(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "1", CELERY_MEMORY_ENABLED="0")
    stage.send(worker, "noop", times=5)
    wait_for(lambda: worker.text.count("] succeeded") == 5, "five runs in the worker's log")
    assert succeeded(exporter, worker, "noop") is None


@pytest.fixture
def broker_url_as_backend(stage: Stage) -> str:
    return stage.broker.url.replace("/0", "/1")


def test_the_python_under_test(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-P", "solo")
    version = ".".join(map(str, sys.version_info[:3]))
    wait_for(
        lambda: (
            exporter.by_label("celery_worker_info", "python_version", worker=worker.nodename).keys()
            == {version}
        ),
        "the worker's Python version",
    )
