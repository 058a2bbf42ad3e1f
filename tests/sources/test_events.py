"""What may arrive from a broker, without one."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from prometheus_client import CollectorRegistry

from celery_memory_exporter.common.codec import MAX_MESSAGE_BYTES, encode
from celery_memory_exporter.common.report import EVENT_TYPE
from celery_memory_exporter.common.urls import safe_url
from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.metrics.collector import FleetCollector
from celery_memory_exporter.metrics.exposition import encode as encode_exposition
from celery_memory_exporter.sources.events import EventLoop, explain
from tests import samples
from tests.strategies import JSON


@dataclass
class Message:
    """As kombu hands one on."""

    body: bytes

    def decode(self) -> Any:
        return json.loads(self.body)


def test_a_message_that_kombu_cannot_unpack_is_counted() -> None:
    receiver = Receiver()
    receiver.loop.on_decode_error(None, ValueError("compression"))
    assert rejected(receiver.fleet.snapshot(0.0)) == {"undecodable": 1}


class Receiver:
    def __init__(self) -> None:
        self.fleet = Fleet(Rules(samples.BOOT, Limits()))
        self.loop = EventLoop(self.fleet, Broker(url="memory://"), monotonic=lambda: 0.0)

    def receive(self, value: object) -> Snapshot:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.loop.on_message(Message(body))
        return self.fleet.snapshot(0.0)


def event(**changes: Any) -> dict[str, Any]:
    return {
        "type": EVENT_TYPE,
        "hostname": "celery@web1",
        "timestamp": 0.0,
        "report": encode(samples.report()),
        **changes,
    }


def rejected(snapshot: Snapshot) -> dict[str, int]:
    return {reason: count for reason, count in snapshot.reports_rejected.items() if count}


def test_a_report() -> None:
    snapshot = Receiver().receive(event())
    assert [worker.nodename for worker in snapshot.workers] == ["celery@web1"]
    assert snapshot.events_received == {"memory": 1}


def test_events_may_come_in_batches() -> None:
    heartbeat = {"type": "worker-heartbeat", "hostname": "w2@h", "active": 2, "timestamp": 1}
    snapshot = Receiver().receive([event(), heartbeat])
    assert {worker.nodename for worker in snapshot.workers} == {"celery@web1", "w2@h"}


@pytest.mark.parametrize(
    ("message", "reasons"),
    [
        (b"x" * (MAX_MESSAGE_BYTES + 1), {"oversized": 1}),
        (json.dumps(event()).encode()[:500], {"undecodable": 1}),
        (b"\xff\xfe", {"undecodable": 1}),
        (event(report=None), {"malformed": 1}),
        (event(report={**encode(samples.report()), "version": 2}), {"version": 1}),
        ({"no": "type"}, {"malformed": 1}),
        ({"type": 7}, {"malformed": 1}),
        ([1, "a", None], {"malformed": 3}),
        ({"type": "worker-heartbeat", "hostname": 5}, {}),
        ({"type": "worker-heartbeat", "hostname": "x" * 300}, {}),
        ({"type": "worker-heartbeat", "hostname": "w", "active": "many", "timestamp": "then"}, {}),
        ({"type": "task-succeeded", "uuid": "1"}, {}),
        ({"type": "task-succeeded", "timestamp": 10**400}, {}),
        ({"type": "x" * 200}, {"malformed": 1}),
        ({"type": "\ud800-odd", "timestamp": float("inf")}, {}),
        ({"type": "worker-heartbeat", "hostname": "\ud800", "active": 10**400}, {}),
    ],
)
def test_what_is_no_report_is_counted_and_the_next_good_one_shows(
    message: object, reasons: dict[str, int]
) -> None:
    receiver = Receiver()
    assert rejected(receiver.receive(message)) == reasons
    shown = CollectorRegistry()
    shown.register(FleetCollector(lambda: receiver.fleet.snapshot(0.0)))
    assert encode_exposition(shown, "")[0], "whatever it was, /metrics answers"
    assert "celery@web1" in {worker.nodename for worker in receiver.receive(event()).workers}


@given(JSON)
def test_nothing_that_arrives_is_raised(value: object) -> None:
    Receiver().receive(value)


@given(JSON, JSON, JSON)
def test_no_field_of_an_event_is_trusted(hostname: object, report: object, active: object) -> None:
    receiver = Receiver()
    receiver.receive(event(hostname=hostname, report=report))
    receiver.receive(
        {"type": "worker-heartbeat", "hostname": hostname, "active": active, "timestamp": report}
    )


def test_what_is_no_event_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            receiver.receive(b"{")
    assert len(caplog.records) == 1


def test_passwords_do_not_show() -> None:
    assert safe_url("redis://user:hunter2@h:6379/0") == "redis://user:**@h:6379/0"
    assert safe_url("amqp://u:p1@h1//;amqp://u:p/2@h2//") == "amqp://u:**@h1//;amqp://u:**@h2//"
    assert "s3" not in explain(
        ValueError("Port could not be cast to integer value as 's3'"), "redis://:s3/cret@h/0"
    )
    shown = explain(OSError("cannot log in with hunter2: WRONGPASS"), "amqp://me:hunter2@h//")
    assert "hunter2" not in shown
    assert "check user and password" in shown


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "check that the broker runs there"),
        (OSError("[Errno -2] Name or service not known"), "check the host name"),
        (ImportError("No module named boto3"), "install the transport's library"),
        (KeyError("nosuch"), "install the transport's library"),
        (RuntimeError("a\nb"), "check broker.url"),
    ],
)
def test_each_failure_says_what_to_do_in_one_line(error: BaseException, hint: str) -> None:
    shown = explain(error, "redis://h")
    assert hint in shown
    assert "\n" not in shown
