"""More than one broker in one exporter, and events at another one than the tasks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.figures import wait_for_value
from tests.integration.servers import Server
from tests.integration.stage import Stage
from tests.integration.worker import name_of


@pytest.fixture
def other(
    rabbitmq_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """Another broker with its own workers, beside the one that ``stage`` has."""
    from tests.integration import tasks

    if not rabbitmq_server.running:
        rabbitmq_server.start()
    folder = tmp_path / "other"
    folder.mkdir()
    stage = Stage(folder, rabbitmq_server, tasks)
    yield stage
    stage.end()


QUICK = {"queues": {"interval_seconds": 1}}


def test_two_brokers_are_told_apart_even_if_their_workers_have_one_name(
    stage: Stage, other: Stage
) -> None:
    brokers = [
        {"name": "redis", "url": stage.broker.url},
        {"name": "rabbit", "url": other.broker.url},
    ]
    exporter = stage.configured(brokers=brokers, **QUICK)
    for each in (stage, other):
        worker = each.worker("-c", "1", name="twin")
        each.send(worker, "noop", times=20 if each is stage else 30)
    for broker, runs in (("redis", 20), ("rabbit", 30)):
        labels = {"broker": broker, "worker": "twin@localhost", "name": name_of("noop")}
        wait_for_value(exporter, runs, "celery_task_succeeded_total", **labels)
        wait_for_value(exporter, 0, "celery_queue_length", broker=broker, queue_name="twin")
        main = {"worker": "twin@localhost", "process": "main"}
        assert exporter.value("celery_worker_memory_rss_bytes", broker=broker, **main)
        assert exporter.value("celery_memory_exporter_source_up", source=f"broker/{broker}") == 1
    wait_for_value(exporter, 1, "celery_active_consumer_count", broker="rabbit", queue_name="twin")


def test_reports_and_queues_may_be_at_two_places(stage: Stage, other: Stage) -> None:
    """As with SQS, which has no events: reports go to a Redis that both reach."""
    broker = {"url": other.broker.url, "events_url": stage.broker.url}
    exporter = stage.configured(broker=broker, **QUICK)
    worker = other.worker("-c", "1", CELERY_MEMORY_EVENTS_URL=stage.broker.url)
    other.send(worker, "noop", times=20)
    labels = {"worker": worker.nodename, "name": name_of("noop")}
    wait_for_value(exporter, 20, "celery_task_succeeded_total", **labels)
    wait_for_value(exporter, 1, "celery_active_consumer_count", queue_name=worker.queue)
    wait_for_value(exporter, 0, "celery_queue_length", queue_name=worker.queue)
    wait_for_value(exporter, 1, "celery_active_worker_count", queue_name=worker.queue)
