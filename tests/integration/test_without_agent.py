"""Workers without the agent: what their events, their answers and the process table tell
together."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import redis
import yaml

from tests.integration.conftest import Exporter, Stage, Worker, wait_for
from tests.integration.test_agent import name_of


@pytest.fixture
def quick(tmp_path: Path) -> str:
    """Everything asked often, so that a test need not wait."""
    file = tmp_path / "config.yaml"
    settings = {
        "queues": {"interval_seconds": 1, "inspect_interval_seconds": 5},
        "processes": {"interval_seconds": 0.5},
    }
    file.write_text(yaml.safe_dump(settings))
    return str(file)


def count(exporter: Exporter, worker: Worker, family: str, task: str) -> float:
    return exporter.value(family, worker=worker.nodename, name=name_of(task)) or 0


def test_a_worker_is_asked_for_its_pool_and_its_queues(stage: Stage, quick: str) -> None:
    exporter = stage.exporter("--config", quick)
    worker = stage.worker("-E", "-c", "3", agent=False)
    wait_for(
        lambda: exporter.value("celery_worker_concurrency", worker=worker.nodename) == 3,
        "what the worker answers",
    )
    assert exporter.by_label("celery_worker_info", "pool", worker=worker.nodename).keys() == {
        "prefork"
    }
    assert exporter.value("celery_active_worker_count", queue_name=worker.queue) == 1
    assert exporter.value("celery_active_process_count", queue_name=worker.queue) == 3
    stage.send(worker, "noop", times=5)
    wait_for(
        lambda: count(exporter, worker, "celery_task_succeeded_total", "noop") == 5, "five tasks"
    )
    assert exporter.by_label(
        "celery_task_succeeded_total", "queue_name", worker=worker.nodename
    ) == {worker.queue: 5}


def test_the_task_type_that_grows_is_estimated(stage: Stage, quick: str) -> None:
    exporter = stage.exporter("--config", quick)
    worker = stage.worker("-E", "-c", "1", agent=False)
    chance = random.Random(5)
    growing = {"worker": worker.nodename, "name": name_of("keep_bytes")}

    def told() -> bool:
        for task, arguments in (("keep_bytes", (200_000,)), ("noop", ())):
            stage.send(worker, task, *arguments, times=chance.randrange(4))
        estimate, error = (
            exporter.value(f"celery_task_memory_estimate{part}_bytes", **growing)
            for part in ("", "_error")
        )
        return (
            estimate is not None
            and error is not None
            and estimate > 5 * error
            and 100_000 < estimate < 400_000
        )

    wait_for(told, "an estimate near 200,000 bytes a run")
    idle = {**growing, "name": name_of("noop")}
    estimate, error = (
        exporter.value(f"celery_task_memory_estimate{part}_bytes", **idle)
        for part in ("", "_error")
    )
    assert estimate is not None
    assert error is not None
    assert abs(estimate) < max(5 * error, 20_000)
    assert exporter.value("celery_task_memory_delta_bytes_bucket", **growing) is None, (
        "an estimate has a name of its own"
    )


def test_what_is_lost_is_shown(stage: Stage, quick: str) -> None:
    exporter = stage.exporter("--config", quick)
    worker = stage.worker("-E", "-c", "1", agent=False)
    stage.send(worker, "noop", times=10)
    wait_for(
        lambda: count(exporter, worker, "celery_task_succeeded_total", "noop") == 10, "ten tasks"
    )
    lost = {"worker": worker.nodename}
    wait_for(
        lambda: exporter.value("celery_memory_exporter_events_lost_total", **lost) == 0,
        "nothing lost",
    )
    client = redis.Redis.from_url(stage.broker.url)
    before = exporter.value("celery_memory_exporter_broker_reconnects_total") or 0

    def subscribed() -> list[str]:
        """Ours has three patterns."""
        return [each["id"] for each in client.client_list(_type="pubsub") if each["psub"] == "3"]

    # As Redis closes a subscriber that is too slow. Twice, since a good connection is made anew at
    # once, and then one waits.
    for _ in range(2):
        (ours,) = wait_for(subscribed, "the subscription")
        client.client_kill_filter(_id=ours)
        wait_for(lambda: ours not in subscribed(), "the subscription to end")  # noqa: B023
    stage.send(worker, "noop", times=100)
    reconnects = "celery_memory_exporter_broker_reconnects_total"
    wait_for(lambda: (exporter.value(reconnects) or 0) >= before + 2, "the exporter to notice")
    wait_for(exporter.ready, "the exporter to be connected again")

    def balanced() -> bool:
        stage.send(worker, "spike", 1)
        counted = count(exporter, worker, "celery_task_started_total", "noop")
        missing = exporter.value("celery_memory_exporter_events_lost_total", **lost) or 0
        unknown = (
            exporter.value("celery_memory_exporter_events_ignored_total", reason="unknown_task")
            or 0
        )
        return missing > 0 and 105 - unknown <= counted + missing <= 110

    wait_for(balanced, "what was counted and what was lost to be all that was started")


def test_without_events_nothing_is_made_up(stage: Stage, quick: str) -> None:
    exporter = stage.exporter("--config", quick)
    worker = stage.worker("-c", "1", agent=False)
    stage.send(worker, "noop", times=10)
    wait_for(
        lambda: exporter.value("celery_worker_concurrency", worker=worker.nodename) == 1,
        "what the worker answers",
    )
    families = {
        family for family, labels in exporter.samples() if ("worker", worker.nodename) in labels
    }
    assert not {family for family in families if family.startswith("celery_task_")}
    assert "celery_memory_exporter_events_lost_total" not in families
    assert exporter.value("celery_worker_up", worker=worker.nodename) == 1
