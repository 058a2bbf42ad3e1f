"""What may arrive from a broker, without one."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from celery.events.event import get_exchange
from hypothesis import given
from kombu import Connection
from prometheus_client import CollectorRegistry

from celery_memory_exporter.common.codec import MAX_MESSAGE_BYTES, encode
from celery_memory_exporter.common.report import EVENT_TYPE
from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.metrics.collector import FleetCollector
from celery_memory_exporter.metrics.exposition import encode as encode_exposition
from celery_memory_exporter.sources.events import EventLoop
from celery_memory_exporter.sources.poller import Attempt
from tests import samples
from tests.strategies import JSON

#: What has to happen happens within this, on a crowded machine too.
SOON = 30.0


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


class Heard(Fleet):
    """A fleet that lets itself be waited for."""

    def __init__(self) -> None:
        super().__init__(Rules(samples.BOOT, Limits()))
        self.connected, self.event, self.lost = (threading.Event() for _ in range(3))

    def apply_source(self, name: str, *, up: bool, **more: Any) -> None:
        super().apply_source(name, up=up, **more)
        (self.connected if up else self.lost).set()

    def apply_event(self, group: str, lag: float | None) -> None:
        super().apply_event(group, lag)
        self.event.set()


def test_events_of_a_broker_are_heard_until_it_stops() -> None:
    fleet = Heard()
    loop = EventLoop(fleet, Broker(url="memory://"))
    loop.start()
    assert fleet.connected.wait(SOON)
    with Connection("memory://") as connection:
        producer = connection.Producer(exchange=get_exchange(connection))
        producer.publish({"type": "worker-heartbeat", "hostname": "w@h"}, "worker.heartbeat")
    assert fleet.event.wait(SOON)
    loop.stop()
    assert fleet.snapshot(0.0).sources["broker"].up


def test_a_broker_that_is_not_there_is_a_source_that_is_down_and_is_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Heard()
    loop = EventLoop(fleet, Broker(name="eu", url="unheard-of://:s3cret@h"))
    loop.start()
    fleet.lost.clear()
    assert fleet.lost.wait(SOON)
    loop.stop()
    assert not fleet.snapshot(0.0).sources["broker/eu"].up
    assert fleet.snapshot(0.0).broker_reconnects == 0, "there was no connection to lose"
    assert "trying again in 2 s" in caplog.text
    assert "s3cret" not in caplog.text


class BrokenError(Exception):
    """What a connection ends by."""


def test_pauses_grow_only_while_no_connection_stands() -> None:
    now = 0.0
    loop = EventLoop(
        Heard(), Broker(url="memory://", reconnect_max_seconds=6.0), monotonic=lambda: now
    )

    def pause_after(stood: float | None) -> float:
        """The pause after an attempt whose connection stood for so many seconds; ``None`` for one
        without a connection."""
        nonlocal now
        loop._connected = None if stood is None else now
        now += stood or 0.0
        loop._tell(Attempt(0.0, BrokenError(), again=False))
        return loop._poller.interval

    assert [pause_after(None) for _ in range(4)] == [2.0, 4.0, 6.0, 6.0]
    assert [pause_after(stood) for stood in (0.5, 3.0, None, 20.0, None)] == [6, 1, 2, 0, 1]
