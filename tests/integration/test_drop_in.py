"""What users of danihodovic/celery-exporter rely on, seen from outside as its own black-box tests
see it: the text of ``/metrics``."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from collections.abc import Iterable
from typing import Any

import pytest

from tests.integration.client import sending_app
from tests.integration.exporter import Exporter
from tests.integration.stage import Stage
from tests.integration.waiting import nothing, wait_for
from tests.integration.worker import Worker, name_of

pytestmark = pytest.mark.integration
BOTH = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
CONFIGURED = "queue_from_the_config"
#: The longest that a scrape may take, in seconds; the other one needs two for each.
SCRAPE_SECONDS = 3
SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
VALUE = re.compile(r"-?\d+\.\d+(e[+-]\d+)?|[+-]Inf|NaN")


def exporter_with(stage: Stage, **settings: Any) -> Exporter:
    """``settings`` beside short intervals, since nobody wants to wait."""
    broker = {"url": stage.broker.url, "queues": [CONFIGURED]}
    intervals = {
        "queues": {"interval_seconds": 1, "inspect_interval_seconds": 5},
        "processes": {"interval_seconds": 1},
    }
    return stage.configured(broker=broker, **intervals, **settings)


def line(family: str, value: float, **labels: str) -> str:
    """As it stands in the text: labels in alphabetical order, and a value that is a float's."""
    written = ",".join(f'{name}="{each}"' for name, each in sorted(labels.items()))
    return f"{family}{{{written}}} {float(value)}"


def wait_for_lines(exporter: Exporter, lines: Iterable[str]) -> None:
    """An error shows each line that is missing, with those of its family."""

    def missing() -> list[str]:
        text = exporter.text_of().splitlines()
        lacking = [each for each in lines if each not in text]
        families = {each.partition("{")[0] for each in lacking}
        near = [f"there is {each}" for each in text if each.partition("{")[0] in families]
        return [*lacking, *near]

    wait_for(missing, "lines", nothing)


def assert_well_written(text: str) -> None:
    samples = [each for each in text.splitlines() if not each.startswith("#")]
    assert len(samples) > 50
    for each in samples:
        match = SAMPLE.fullmatch(each)
        assert match, each
        labels = [name for name, _ in LABEL.findall(match[2] or "")]
        assert labels == sorted(labels), each
        assert VALUE.fullmatch(match[3]), each


def send(stage: Stage, queue: str, task: str, times: int) -> None:
    """With the time in a header, for workers with an agent to tell how long tasks waited; by events
    the client's own tells it."""
    app = sending_app(stage)
    with app.connection_for_write() as connection:
        to = {"queue": queue, "producer": connection.Producer()}
        for _ in range(times):
            app.send_task(name_of(task), headers={"timestamp": time.time()}, **to)


def consumers(stage: Stage, queue: str, count: int) -> list[str]:
    """Only AMQP tells them."""
    amqp = stage.broker.url.startswith("amqp")
    return [line("celery_active_consumer_count", count, queue_name=queue)] if amqp else []


def before_any_worker(stage: Stage) -> list[str]:
    nobody = [
        line(f"celery_active_{each}_count", 0, queue_name=CONFIGURED)
        for each in ("worker", "process")
    ]
    return [
        line("celery_queue_length", 0, queue_name=CONFIGURED),
        *nobody,
        *consumers(stage, CONFIGURED, 0),
    ]


def who(worker: Worker) -> dict[str, str]:
    return {"hostname": "localhost", "worker": worker.nodename}


def while_it_waits(stage: Stage, worker: Worker) -> list[str]:
    return [
        line("celery_worker_up", 1, **who(worker)),
        line("celery_worker_tasks_active", 0, **who(worker)),
        line("celery_queue_length", 0, queue_name=worker.queue),
        line("celery_active_worker_count", 1, queue_name=worker.queue),
        line("celery_active_process_count", 2, queue_name=worker.queue),
        *consumers(stage, worker.queue, 1),
    ]


def sent(worker: Worker) -> list[str]:
    counts = {"noop": 2, "fail": 1}
    to = {"hostname": "generic", "queue_name": worker.queue}
    return [
        line("celery_task_sent_total", count, name=name_of(task), **to)
        for task, count in counts.items()
    ]


def while_nobody_takes_them(stage: Stage, worker: Worker) -> list[str]:
    return [
        *sent(worker),
        line("celery_worker_up", 0, **who(worker)),
        line("celery_queue_length", 3, queue_name=worker.queue),
        line("celery_active_worker_count", 0, queue_name=worker.queue),
        *consumers(stage, worker.queue, 0),
    ]


def when_all_is_done(stage: Stage, worker: Worker) -> list[str]:
    noop, fail = (
        {"name": name_of(task), "queue_name": worker.queue, **who(worker)}
        for task in ("noop", "fail")
    )
    counts = {
        "received": 2,
        "started": 2,
        "succeeded": 2,
        "retried": 0,
        "rejected": 0,
        "revoked": 0,
    }
    return [
        *sent(worker),
        *while_it_waits(stage, worker),
        *(line(f"celery_task_{field}_total", count, **noop) for field, count in counts.items()),
        line("celery_task_failed_total", 0, exception="", **noop),
        line("celery_task_received_total", 1, **fail),
        line("celery_task_started_total", 1, **fail),
        line("celery_task_succeeded_total", 0, **fail),
        line("celery_task_failed_total", 1, exception="ValueError", **fail),
        line("celery_task_runtime_count", 2, **noop),
        line("celery_task_runtime_bucket", 2, le="10.0", **noop),
        line("celery_task_queue_wait_time_count", 2, **noop),
        line("celery_task_queue_wait_time_count", 1, **fail),
    ]


@BOTH
def test_from_before_the_first_worker_until_what_was_sent_to_none_is_done(stage: Stage) -> None:
    exporter = exporter_with(stage)
    wait_for_lines(exporter, before_any_worker(stage))
    assert exporter.by_label("celery_queue_length", "queue_name").keys() == {CONFIGURED}, (
        "and no queue that nobody told of"
    )

    workers = [stage.worker("-c", "2"), stage.worker("-c", "2", "-E", agent=False)]
    wait_for_lines(exporter, [each for worker in workers for each in while_it_waits(stage, worker)])

    for worker in workers:
        assert worker.stop() == 0
        send(stage, worker.queue, "noop", 2)
        send(stage, worker.queue, "fail", 1)
    wait_for_lines(
        exporter, [each for worker in workers for each in while_nobody_takes_them(stage, worker)]
    )

    for worker in workers:
        worker.start()
    wait_for_lines(
        exporter, [each for worker in workers for each in when_all_is_done(stage, worker)]
    )
    assert_well_written(exporter.text_of())
    assert exporter.by_label("celery_task_received_total", "hostname").keys() == {"localhost"}, (
        "and no client's"
    )


def test_the_pages_that_probes_and_people_open(stage: Stage) -> None:
    exporter = exporter_with(stage)
    stage.worker("-c", "1", agent=False)
    for path in ("/metrics", "/health", "/"):
        begun = time.monotonic()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{exporter.port}{path}", timeout=SCRAPE_SECONDS
        ) as response:
            assert response.status == 200, path
            body = response.read().decode()
        assert time.monotonic() - begun < SCRAPE_SECONDS, path
        assert path != "/" or "/metrics" in body


def test_clients_are_generic_unless_they_are_to_be_told_apart(stage: Stage) -> None:
    generic, apart = exporter_with(stage), exporter_with(stage, labels={"senders": True})
    name = f"apart-{stage.broker.port}"
    send(stage, name, "noop", 3)
    worker = stage.worker("-P", "solo", "-E", name=name, agent=False)
    labels = {"name": name_of("noop"), "queue_name": worker.queue}
    wait_for_lines(generic, [line("celery_task_sent_total", 3, hostname="generic", **labels)])
    wait_for_lines(
        apart, [line("celery_task_sent_total", 3, hostname=socket.gethostname(), **labels)]
    )
    for exporter in (generic, apart):
        wait_for_lines(
            exporter,
            [
                line(
                    "celery_task_succeeded_total",
                    3,
                    hostname="localhost",
                    worker=worker.nodename,
                    **labels,
                )
            ],
        )
