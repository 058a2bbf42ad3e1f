"""Reports sent, and what becomes of them when the broker is gone."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest

from celery_memory_exporter.agent.worker import sender
from celery_memory_exporter.agent.worker.sender import CONNECT_SECONDS, PATIENCE, ReportSender
from celery_memory_exporter.common.report import EVENT_TYPE
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
    with pytest.raises(ConnectionResetError):
        reports.send({})
    app.gone = False
    assert not reports.send({}), "it is not tried again so soon"
    now[0] += CONNECT_SECONDS
    assert reports.send({})


def test_a_report_that_cannot_be_sent_is_dropped_and_the_connection_released() -> None:
    app = App()
    reports = ReportSender(app, "celery@web1", None)
    reports.send({})
    app.gone = True
    with pytest.raises(ConnectionResetError):
        reports.send({})
    assert (reports.dropped, app.open) == (1, 0)


def test_after_a_failure_nothing_is_tried_for_a_growing_while(now: list[float]) -> None:
    app = App()
    app.gone = True
    reports = ReportSender(app, "celery@web1", None)
    tries = []
    for _ in range(4_000):
        try:
            reports.send({})
        except ConnectionRefusedError:
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
    with pytest.raises(ConnectionRefusedError):
        reports.send({"sequence": 1})
    app.gone = False
    reports.send({"sequence": 2})
    now[0] += CONNECT_SECONDS
    reports.send({"sequence": 3})
    assert [report["sequence"] for _, report in app.sent] == [3]
    assert reports.dropped == 2
