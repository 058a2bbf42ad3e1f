"""Workers without the agent: what their events, their answers and the process table tell
together."""

from __future__ import annotations

import random
from typing import Any

import pytest
import redis

from tests.integration.exporter import Exporter
from tests.integration.figures import of_task, wait_for_runs, wait_for_value
from tests.integration.programs import suspended
from tests.integration.stage import Stage
from tests.integration.waiting import at_least, equals, wait_for
from tests.integration.worker import Worker

pytestmark = pytest.mark.integration
LOST = "celery_memory_exporter_events_lost_total"
RECONNECTS = "celery_memory_exporter_broker_reconnects_total"


def exporter_of(stage: Stage) -> Exporter:
    """Everything asked often, so that a test need not wait."""
    return stage.configured(
        broker={"url": stage.broker.url},
        queues={"interval_seconds": 1, "inspect_interval_seconds": 5},
        processes={"interval_seconds": 0.5},
    )


def test_a_worker_is_asked_for_its_pool_and_its_queues(stage: Stage) -> None:
    exporter = exporter_of(stage)
    worker = stage.worker("-E", "-c", "3", agent=False)
    wait_for_value(exporter, 3, "celery_worker_concurrency", worker=worker.nodename)
    pools = exporter.by_label("celery_worker_info", "pool", worker=worker.nodename)
    assert pools.keys() == {"prefork"}
    wait_for_value(exporter, 1, "celery_active_worker_count", queue_name=worker.queue)
    wait_for_value(exporter, 3, "celery_active_process_count", queue_name=worker.queue)
    stage.send(worker, "noop", times=5)
    wait_for_runs(exporter, worker, "noop", 5)
    assert exporter.by_label(
        "celery_task_succeeded_total", "queue_name", worker=worker.nodename
    ) == {worker.queue: 5}


def estimate(exporter: Exporter, labels: dict[str, str]) -> tuple[float, float] | None:
    """Bytes that a run adds, and the error of that; ``None`` while there is none."""
    found, error = (
        exporter.value(f"celery_task_memory_estimate{part}_bytes", **labels)
        for part in ("", "_error")
    )
    return None if found is None or error is None else (found, error)


def test_the_task_type_that_grows_is_estimated(stage: Stage) -> None:
    exporter = exporter_of(stage)
    worker = stage.worker("-E", "-c", "1", agent=False)
    chance = random.Random(5)
    growing = of_task(worker, "keep_bytes")

    def told() -> tuple[float, float] | None:
        for task, arguments in (("keep_bytes", (200_000,)), ("noop", ())):
            stage.send(worker, task, *arguments, times=chance.randrange(4))
        return estimate(exporter, growing)

    wait_for(
        told,
        "an estimate near 200,000 bytes a run",
        lambda seen: seen is not None and seen[0] > 5 * seen[1] and 100_000 < seen[0] < 400_000,
    )
    idle = estimate(exporter, of_task(worker, "noop"))
    assert idle is not None
    assert abs(idle[0]) < max(5 * idle[1], 20_000)
    assert exporter.value("celery_task_memory_delta_bytes_bucket", **growing) is None, (
        "an estimate has a name of its own"
    )


def subscriptions(client: Any) -> list[str]:
    """An exporter's have three patterns."""
    return [each["id"] for each in client.client_list(_type="pubsub") if each["psub"] == "3"]


def lose_events(stage: Stage, exporter: Exporter, worker: Worker, task: str, runs: int) -> None:
    """Redis closes the exporter's subscription, as it does with one that is too slow, and before
    the exporter can notice, a worker has run tasks."""
    with redis.Redis.from_url(stage.broker.url) as client:
        (ours,) = wait_for(lambda: subscriptions(client), "the subscription")
        with suspended(exporter.pid):
            client.client_kill_filter(_id=ours)
            wait_for(lambda: subscriptions(client), "the subscription to end", equals([]))
            before = worker.logged(task)
            stage.send(worker, task, times=runs)
            wait_for(lambda: worker.logged(task), f"{runs} runs", equals(before + runs))


def test_what_is_lost_is_shown(stage: Stage) -> None:
    exporter = exporter_of(stage)
    worker = stage.worker("-E", "-c", "1", agent=False)
    stage.send(worker, "noop", times=10)
    wait_for_runs(exporter, worker, "noop", 10)
    wait_for_value(exporter, 0, LOST, worker=worker.nodename)
    before = exporter.value(RECONNECTS) or 0
    lose_events(stage, exporter, worker, "noop", 100)
    wait_for(lambda: exporter.value(RECONNECTS), "the exporter to notice", at_least(before + 1))
    exporter.wait_until_ready()

    def told() -> tuple[float, float, float]:
        """Lost, lost or counted, and, of any worker, what only later events told of."""
        stage.send(worker, "spike", 1)
        lost = exporter.value(LOST, worker=worker.nodename) or 0
        counted = exporter.value("celery_task_started_total", **of_task(worker, "noop")) or 0
        unknown = exporter.value(
            "celery_memory_exporter_events_ignored_total", reason="unknown_task"
        )
        return lost, lost + counted, unknown or 0

    wait_for(
        told,
        "what was counted and what was lost to be all that was started",
        lambda seen: seen[0] > 0 and 105 - seen[2] <= seen[1] <= 110,
    )


def test_without_events_nothing_is_made_up(stage: Stage) -> None:
    exporter = exporter_of(stage)
    worker = stage.worker("-c", "1", agent=False)
    stage.send(worker, "noop", times=10)
    wait_for_value(exporter, 1, "celery_worker_concurrency", worker=worker.nodename)
    families = {
        family for family, labels in exporter.samples() if ("worker", worker.nodename) in labels
    }
    assert not {family for family in families if family.startswith("celery_task_")}
    assert LOST not in families
    assert exporter.value("celery_worker_up", worker=worker.nodename) == 1
