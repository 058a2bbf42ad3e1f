"""Queues, read from real brokers."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from typing import Any

import pytest
from celery import Celery

from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.sources.queue_reader import QueueReader
from tests.integration.exporter import Exporter
from tests.integration.figures import wait_for_value
from tests.integration.programs import suspended
from tests.integration.servers import Server
from tests.integration.stage import Stage
from tests.integration.waiting import at_least, wait_for

pytestmark = pytest.mark.integration
BOTH = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
LENGTH, OLDEST = "celery_queue_length", "celery_queue_oldest_task_age_seconds"
NUMBER = itertools.count(1)


def queue_name() -> str:
    return f"queue{next(NUMBER)}"


def client(server: Server, **settings: Any) -> Celery:
    """An application that only sends."""
    app = Celery("client", broker=server.url, set_as_current=False)
    app.conf.update(server.settings, **settings)
    return app


def exporter_for(stage: Stage, *queues: str, **broker: Any) -> Exporter:
    return stage.configured(
        broker={"url": stage.broker.url, "queues": list(queues), **broker},
        queues={"interval_seconds": 1},
    )


def wait_for_length(exporter: Exporter, queue: str, length: int) -> None:
    wait_for_value(exporter, length, LENGTH, queue_name=queue)


def wait_for_source(exporter: Exporter, *, up: bool) -> None:
    """That reads the queues."""
    wait_for_value(exporter, up, "celery_memory_exporter_source_up", source="queues")


# --- length -------------------------------------------------------------------------------------


def send_with_priorities(app: Celery, queue: str) -> None:
    for priority in (0, 3, 6, 9, 9):
        app.send_task("nobody.runs.this", queue=queue, priority=priority)


def test_priorities_are_summed_and_told_apart(stage: Stage) -> None:
    queue, plain = queue_name(), queue_name()
    send_with_priorities(client(stage.broker), queue)
    exporter = exporter_for(stage, queue, plain)
    wait_for_length(exporter, queue, 5)
    by_priority = exporter.by_label("celery_queue_length_by_priority", "priority", queue_name=queue)
    assert by_priority == {"0": 1, "3": 1, "6": 1, "9": 2}
    wait_for_length(exporter, plain, 0)


def test_a_prefix_and_steps_of_ones_own(stage: Stage) -> None:
    queue = queue_name()
    options = {"global_keyprefix": "ours:", "priority_steps": [0, 5], "sep": ":"}
    send_with_priorities(client(stage.broker, broker_transport_options=options), queue)
    exporter = exporter_for(stage, queue, transport_options=options)
    wait_for_length(exporter, queue, 5)
    assert exporter.by_label("celery_queue_length_by_priority", "priority", queue_name=queue) == {
        "0": 2,
        "5": 3,
    }
    wait_for(
        lambda: exporter.value(OLDEST, queue_name=queue),
        "the head to have been seen twice",
        at_least(0),
    )


@BOTH
def test_messages_consumers_workers_and_processes(stage: Stage) -> None:
    """Of a worker with an agent and of one without, which is asked."""
    absent = queue_name()
    exporter = exporter_for(stage, absent)
    workers = stage.worker("-c", "2"), stage.worker("-c", "3", agent=False)
    for worker, processes in zip(workers, (2, 3), strict=True):
        for family, count in [
            (LENGTH, 0),
            ("celery_active_worker_count", 1),
            ("celery_active_process_count", processes),
        ]:
            wait_for_value(exporter, count, family, queue_name=worker.queue)
    amqp = stage.broker.url.startswith("amqp")
    for queue, consumers in ((workers[0].queue, 1), (absent, 0)):
        told = consumers if amqp else None
        wait_for_value(exporter, told, "celery_active_consumer_count", queue_name=queue)
    wait_for_length(exporter, absent, 0)
    wait_for_source(exporter, up=True)
    assert workers[0].stop() == 0
    stage.send(workers[0], "noop", times=3)
    wait_for_length(exporter, workers[0].queue, 3)


# --- the oldest task ----------------------------------------------------------------------------


def test_the_oldest_tasks_age_by_its_own_time(stage: Stage) -> None:
    queue = queue_name()
    headers = {"sentry-task-enqueued-time": str(time.time() - 1000)}
    client(stage.broker).send_task("nobody.runs.this", queue=queue, headers=headers)
    exporter = exporter_for(stage, queue)
    wait_for(
        lambda: exporter.value(OLDEST, queue_name=queue),
        "the age that the message tells",
        at_least(1000),
    )


def test_the_oldest_tasks_age_by_its_clients_event(stage: Stage) -> None:
    queue = queue_name()
    exporter = exporter_for(stage, queue)
    app = client(stage.broker, task_send_sent_event=True)
    client(stage.broker).send_task("nobody.tells.of.this", queue=queue)
    sent = time.time()
    app.send_task("nobody.runs.this", queue=queue)
    wait_for_value(exporter, 1, "celery_task_sent_total", name="nobody.runs.this")
    wait_for_length(exporter, queue, 2)
    with app.connection_for_write() as connection, connection.channel() as channel:
        assert channel.client.rpop(queue) is not None

    def seen() -> dict[str, float]:
        """At the same moment."""
        samples = exporter.samples(LENGTH, OLDEST)
        return {
            name: value
            for (name, labels), value in samples.items()
            if ("queue_name", queue) in labels
        }

    head = wait_for(seen, "the second task to be the head", lambda head: head.get(LENGTH) == 1)
    assert head[OLDEST] <= time.time() - sent, "known at first sight, because the client told"


# --- a broker that is not there -----------------------------------------------------------------


@BOTH
def test_queues_that_cannot_be_read_are_absent_and_come_back(stage: Stage) -> None:
    queue = queue_name()
    exporter = exporter_for(stage, queue)
    wait_for_length(exporter, queue, 0)
    stage.broker.stop()
    wait_for_source(exporter, up=False)
    assert exporter.value(LENGTH, queue_name=queue) is None
    assert "queues cannot be read: broker " in exporter.text
    stage.broker.start()
    wait_for_source(exporter, up=True)
    wait_for_length(exporter, queue, 0)
    assert exporter.text.count("queues cannot be read") == 1


@BOTH
def test_a_queue_that_cannot_be_read_hides_only_itself(broker: Server) -> None:
    """A key of another kind in Redis, somebody's exclusive queue in RabbitMQ."""
    queue = queue_name()
    with broker.connection() as connection, connection.channel() as channel:
        if connection.transport.driver_type == "redis":
            channel.client.set(queue, "no list")
        else:
            channel.queue_declare(queue, exclusive=True)
        with contextlib.closing(QueueReader(Broker(url=broker.url), heads=True)) as reader:
            for _ in range(2):
                answers = reader.read(["before", queue, "after"])
                assert set(answers.queues) == {"before", "after"}
                assert re.search("WRONGTYPE|RESOURCE_LOCKED", str(answers.trouble))


@BOTH
def test_a_broker_that_falls_silent_is_given_up(broker: Server) -> None:
    """py-amqp would wait for ever."""
    reader = QueueReader(Broker(url=broker.url), heads=True)
    with suspended(broker.pid), pytest.raises(Exception, match=r"(?i)time"):
        reader.read(["q"])
    reader.close()
    with contextlib.closing(QueueReader(Broker(url=broker.url), heads=True)) as anew:
        assert set(anew.read(["q"]).queues) == {"q"}
