"""Reports sent, and what becomes of them when the broker is gone."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import kombu
import pytest
from celery import Celery
from celery.events.event import get_exchange

from celery_memory_exporter.agent.worker import sender
from celery_memory_exporter.agent.worker.sender import (
    CONNECT_SECONDS,
    PATIENCE,
    ReportSender,
    destination,
)
from celery_memory_exporter.common.codec import encode
from celery_memory_exporter.common.report import EVENT_TYPE
from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.sources.events import EventLoop
from tests import samples
from tests.agent.worker.broker import App


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, to be set."""
    clock = [1_000.0]
    monkeypatch.setattr(sender, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    return clock


def test_reports_go_over_one_connection_of_their_own() -> None:
    app = App()
    reports = ReportSender(app, "celery@web1", None)
    assert app.connected == [], "none before there is something to send"
    for number in range(3):
        reports.send({"sequence": number})
    assert app.sent == [(EVENT_TYPE, {"sequence": number}) for number in range(3)]
    assert len(app.connected) == 1
    reports.close()
    assert (app.open, reports.dropped) == (0, 0)


def test_the_workers_own_broker_is_reached_as_the_application_says_and_without_patience() -> None:
    app = App()
    ReportSender(app, "celery@web1", None).send({})
    (_, options) = app.connected[0]
    assert options["transport_options"] == {"master_name": "mymaster", **PATIENCE}
    assert options["connect_timeout"] == CONNECT_SECONDS


def test_another_broker_is_reached_without_the_applications_options() -> None:
    app = App()
    ReportSender(app, "celery@web1", "redis://events").send({})
    (url, options) = app.connected[0]
    assert (url, options["transport_options"]) == ("redis://events", PATIENCE)


def test_whether_a_report_was_sent(now: list[float]) -> None:
    app = App()
    reports = ReportSender(app, "celery@web1", None)
    assert reports.send({})
    app.gone = True
    assert not reports.send({})
    app.gone = False
    assert not reports.send({}), "it is not tried again so soon"
    now[0] += CONNECT_SECONDS
    assert reports.send({})


def test_a_report_that_cannot_be_sent_is_dropped_and_the_connection_released() -> None:
    app = App()
    reports = ReportSender(app, "celery@web1", None)
    reports.send({})
    app.gone = True
    reports.send({})
    assert (reports.dropped, app.open) == (1, 0)


def test_a_failure_is_told_in_one_line_without_secrets_until_there_is_a_success(
    now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    reports = ReportSender(app, "celery@web1", None)
    for gone in (True, True, False, True):
        app.gone = gone
        reports.send({})
        now[0] += 400.0
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "The memory agent cannot report to redis://:**@here/0, tasks are not affected and it goes "
        f"on trying: Connection{why}Error: ** is wrong, or not"
        for why in ("Refused", "Reset")
    ]
    assert [record.exc_info for record in caplog.records] == [None, None]


@pytest.mark.parametrize("broker", ["redis://:a/b@here", "amqp://me:x@[half"])
def test_a_url_that_cannot_be_understood_is_not_told(
    broker: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    app.gone, app.conf.broker_write_url = True, broker
    ReportSender(app, "celery@web1", None).send({})
    (record,) = caplog.records
    assert record.getMessage().endswith("ConnectionRefusedError: the URL cannot be understood")


@pytest.mark.parametrize(
    ("own", "other", "shown"),
    [
        (None, None, "amqp://"),
        ("redis://:s@h/1?password=s", None, "redis://:**@h/1"),
        (["sentinel://:s@a:1", "sentinel://:s@b:1"], None, "sentinel://:**@a:1;sentinel://:**@b:1"),
        ("sqs://key:s@", "amqp://me:s@h//", "amqp://me:**@h//"),
    ],
)
def test_where_reports_go_is_told_without_secrets(own: Any, other: str | None, shown: str) -> None:
    app = App()
    app.conf.broker_write_url = own
    assert destination(app, other) == shown


@pytest.mark.parametrize("serializer", ["yaml", "json"])
def test_the_exporter_reads_a_report_of_any_application(serializer: str) -> None:
    """Whatever it sends its own events as."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.event_serializer = serializer
    fleet = Fleet(Rules(samples.BOOT, Limits()))
    received = []

    def receive(message: Any) -> None:
        received.append((message.content_type, message.headers.get("compression")))
        loop.on_message(message)

    with app.connection_for_read() as connection:
        loop = EventLoop(fleet, Broker(url="memory://"), monotonic=lambda: 0.0)
        exchange = get_exchange(connection)
        queue = kombu.Queue("reports", exchange, routing_key="memory.#", auto_delete=True)
        with kombu.Consumer(connection, [queue], on_message=receive, no_ack=True):
            ReportSender(app, "celery@web1", None).send(encode(samples.report()))
            connection.drain_events(timeout=10)
    snapshot = fleet.snapshot(0.0)
    assert received == [("application/json", "application/x-gzip")]
    assert (snapshot.reports_received, snapshot.reports_rejected["undecodable"]) == (1, 0)
    assert app.conf.event_serializer == serializer, "of the application's own events"


def test_after_a_failure_nothing_is_tried_for_a_growing_while(now: list[float]) -> None:
    app = App()
    app.gone = True
    reports = ReportSender(app, "celery@web1", None)
    tries = []
    for _ in range(4_000):
        before = len(app.connected)
        reports.send({})
        if len(app.connected) > before:
            tries.append(now[0])
        now[0] += 0.5
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses[:8] == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0]
    assert set(pauses[8:]) == {300.0}
    assert reports.dropped == 4_000


def test_when_the_broker_is_back_reports_go_on(now: list[float]) -> None:
    app = App()
    app.gone = True
    reports = ReportSender(app, "celery@web1", None)
    reports.send({"sequence": 1})
    app.gone = False
    reports.send({"sequence": 2})
    now[0] += CONNECT_SECONDS
    reports.send({"sequence": 3})
    assert [report["sequence"] for _, report in app.sent] == [3]
    assert reports.dropped == 2
