"""Agent and exporter over real brokers, and what happens when one goes away."""

from __future__ import annotations

import json
from typing import Any

import pytest

from celery_memory_exporter.common.codec import MAX_MESSAGE_BYTES, encode
from tests import samples
from tests.integration.exporter import Exporter
from tests.integration.figures import (
    no_agent_trouble,
    succeeded,
    wait_for_growth,
    wait_for_processes,
    wait_for_runs,
    wait_for_value,
)
from tests.integration.servers import Server
from tests.integration.stage import Stage
from tests.integration.waiting import at_least, contains, equals, wait_for

pytestmark = pytest.mark.integration
BOTH = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)


@BOTH
def test_a_thousand_runs_are_a_thousand(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "4", "--max-tasks-per-child", "150")
    stage.send(worker, "noop", times=500)
    stage.send(worker, "leak", 1, times=500)
    wait_for_runs(exporter, worker, "noop", 500)
    wait_for_runs(exporter, worker, "leak", 500)
    assert exporter.value("celery_worker_memory_rss_bytes", worker=worker.nodename, process="main")
    assert exporter.value("celery_memory_exporter_reports_rejected_total") == 0
    assert no_agent_trouble(exporter, worker)


@BOTH
def test_object_growth_over_the_broker(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "2")
    stage.send(worker, "leak", 1, times=50)
    wait_for_growth(exporter, worker, 50)


@BOTH
def test_a_broker_that_goes_and_comes_back_costs_no_task_and_no_count(stage: Stage) -> None:
    exporter = stage.exporter()
    worker = stage.worker("-c", "2")
    stage.send(worker, "noop", times=50)
    wait_for_runs(exporter, worker, "noop", 50)
    stage.send(worker, "sleep", 8, times=2)
    wait_for(lambda: worker.text.count("tasks.sleep["), "both sleepers to be received", equals(2))
    stage.broker.stop()
    wait_for(exporter.readiness, "the exporter to notice")
    wait_for(lambda: worker.text, "the worker to notice", contains("Trying again in"))
    stage.broker.start()
    exporter.wait_until_ready()
    stage.send(worker, "noop", times=50)
    wait_for_runs(exporter, worker, "noop", 100)
    slept = wait_for(
        lambda: succeeded(exporter, worker, "sleep"), "both sleepers to end", at_least(2)
    )
    assert (exporter.value("celery_memory_exporter_broker_reconnects_total") or 0) >= 1
    assert exporter.value("celery_task_failed_total", worker=worker.nodename) == 0
    assert slept in (2, 3, 4), "the broker may deliver again what it did not see acknowledged"


def publish(server: Server, body: bytes, routing_key: str = "memory.report") -> None:
    """Any bytes at all, as an event."""
    from celery.events.event import get_exchange
    from kombu import Connection

    with Connection(server.url) as connection:
        exchange = get_exchange(connection)
        producer = connection.Producer(exchange=exchange, routing_key=routing_key)
        producer.publish(
            body, declare=[exchange], content_type="application/json", content_encoding="utf-8"
        )


def report_event(**changes: Any) -> bytes:
    report = {**encode(samples.report(worker="by@hand")), **changes}
    return json.dumps(
        {"type": "memory-report", "hostname": "by@hand", "timestamp": 0, "report": report}
    ).encode()


def rejected(exporter: Exporter) -> dict[str, float]:
    counts = exporter.by_label("celery_memory_exporter_reports_rejected_total", "reason")
    return {reason: count for reason, count in counts.items() if count}


@BOTH
def test_bad_reports_are_refused_with_a_reason_and_the_next_good_one_shows(stage: Stage) -> None:
    exporter = stage.exporter()
    publish(stage.broker, report_event()[:300])
    publish(stage.broker, report_event(processes="none"))
    publish(stage.broker, report_event(version=99))
    publish(stage.broker, b" " * (MAX_MESSAGE_BYTES + 1))
    publish(stage.broker, report_event(sequence=5))
    publish(stage.broker, report_event(sequence=5))
    publish(stage.broker, report_event(sequence=4))
    publish(stage.broker, report_event(sequence=6, children_started=77))
    wait_for_value(exporter, 77, "celery_worker_children_started_total", worker="by@hand")
    assert rejected(exporter) == {
        "undecodable": 1,
        "malformed": 1,
        "version": 1,
        "oversized": 1,
        "duplicate": 1,
        "stale": 1,
    }
    assert exporter.ready()


@BOTH
def test_a_worker_without_agent_and_events_has_its_memory_and_its_life_shown(stage: Stage) -> None:
    exporter = stage.exporter()
    one = stage.worker("-c", "2", agent=False)
    two = stage.worker("-P", "solo", agent=False)
    for worker, processes in ((one, ("main", "0", "1")), (two, ("main",))):
        wait_for_processes(exporter, worker, *processes)
        assert exporter.value("celery_worker_up", worker=worker.nodename) == 1


def test_the_process_table_alone_is_enough(stage: Stage) -> None:
    exporter = stage.exporter(broker=False)
    worker = stage.worker("-c", "2", agent=False)
    wait_for_processes(exporter, worker, "main", "0", "1")
    assert worker.stop() == 0
    wait_for_value(exporter, 0, "celery_worker_up", worker=worker.nodename)
    wait_for_processes(exporter, worker)


def test_reports_over_another_broker_than_the_workers_own(
    stage: Stage, rabbitmq_server: Server
) -> None:
    """As with SQS, whose kombu transport has no fanout: agent and exporter meet elsewhere."""
    worker = stage.worker("-c", "1", CELERY_MEMORY_EVENTS_URL=rabbitmq_server.url)
    exporter = stage.exporter("--broker-url", rabbitmq_server.url)
    stage.send(worker, "noop", times=20)
    wait_for_runs(exporter, worker, "noop", 20)
