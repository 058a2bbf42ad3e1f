"""More than one broker in one exporter, and events at another one than the tasks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import Server, Stage, wait_for
from tests.integration.test_agent import name_of


@pytest.fixture
def other(
    rabbitmq_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    """Another broker with its own workers, beside the one that ``stage`` has."""
    from tests.integration import tasks

    if rabbitmq_server.process is None or rabbitmq_server.process.poll() is not None:
        rabbitmq_server.start()
    folder = tmp_path / "other"
    folder.mkdir()
    stage = Stage(folder, rabbitmq_server, tasks)
    yield stage
    stage.end()


def config(folder: Path, **settings: Any) -> str:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"queues": {"interval_seconds": 1}, **settings}))
    return str(file)


def test_two_brokers_are_told_apart_even_if_their_workers_have_one_name(
    stage: Stage, other: Stage, tmp_path: Path
) -> None:
    brokers = [
        {"name": "redis", "url": stage.broker.url},
        {"name": "rabbit", "url": other.broker.url},
    ]
    exporter = stage.exporter("--config", config(tmp_path, brokers=brokers), broker=False)
    for each in (stage, other):
        worker = each.worker("-c", "1", name="twin")
        each.send(worker, "noop", times=20 if each is stage else 30)
    for broker, runs in (("redis", 20), ("rabbit", 30)):
        labels = {"broker": broker, "worker": "twin@localhost", "name": name_of("noop")}
        succeeded = partial(exporter.value, "celery_task_succeeded_total", **labels)
        length = partial(exporter.value, "celery_queue_length", broker=broker, queue_name="twin")
        wait_for(lambda runs=runs, told=succeeded: told() == runs, f"{runs} runs at {broker}")
        wait_for(lambda told=length: told() == 0, "the queue")
        assert exporter.value(
            "celery_worker_memory_rss_bytes", broker=broker, worker="twin@localhost", process="main"
        )
        assert exporter.value("celery_memory_exporter_source_up", source=f"broker/{broker}") == 1
    assert exporter.value("celery_active_consumer_count", broker="rabbit", queue_name="twin") == 1


def test_reports_and_queues_may_be_at_two_places(
    stage: Stage, other: Stage, tmp_path: Path
) -> None:
    """As with SQS, which has no events: reports go to a Redis that both reach."""
    broker = {"url": other.broker.url, "events_url": stage.broker.url}
    exporter = stage.exporter("--config", config(tmp_path, broker=broker), broker=False)
    worker = other.worker("-c", "1", CELERY_MEMORY_EVENTS_URL=stage.broker.url)
    other.send(worker, "noop", times=20)
    labels = {"worker": worker.nodename, "name": name_of("noop")}
    wait_for(lambda: exporter.value("celery_task_succeeded_total", **labels) == 20, "20 runs")
    wait_for(
        lambda: exporter.value("celery_active_consumer_count", queue_name=worker.queue) == 1,
        "the queue at its own broker",
    )
    assert exporter.value("celery_queue_length", queue_name=worker.queue) == 0
    assert exporter.value("celery_active_worker_count", queue_name=worker.queue) == 1
