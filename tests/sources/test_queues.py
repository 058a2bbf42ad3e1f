"""What a poll of queues tells the fleet; real brokers are in the integration tests."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from kombu.transport import TRANSPORT_ALIASES, memory

from celery_memory_exporter.config.settings import Broker, Queues
from celery_memory_exporter.fleet.facts import QueueReading
from celery_memory_exporter.sources.queues import QueuePoller
from tests.sources.doubles import Told, send


def poller(fleet: Told, url: str = "memory://", name: str = "", **options: Any) -> QueuePoller:
    return QueuePoller(fleet, Broker(name=name, url=url, transport_options=options), Queues())  # type: ignore[arg-type]


def test_messages_are_counted_and_a_queue_that_is_not_there_is_empty_and_not_made() -> None:
    fleet = Told("q", "none")
    send("q")
    send("q")
    poller(fleet).poll()
    assert fleet.readings == [QueueReading("q", 2, {0: 2}), QueueReading("none", 0, {0: 0})]
    assert "none" not in memory.Channel.queues
    assert fleet.sources == {"queues": True}


def test_a_broker_of_several_is_a_source_of_its_own() -> None:
    fleet = Told()
    poller(fleet, name="eu").poll()
    assert fleet.sources == {"queues/eu": True}


def test_no_queue_is_made_and_one_that_is_missing_hides_only_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, "makesqueues", "tests.sources.doubles:MakesQueues")
    fleet = Told("none", "q")
    send("q")
    poller(fleet, "makesqueues://").poll()
    assert fleet.readings == [QueueReading("q", 1, {0: 1})]
    assert "none" not in memory.Channel.queues
    assert fleet.sources == {"queues": False}
    assert "no none in SQS" in caplog.text


def test_a_poll_that_fails_says_so_once_leaves_the_readings_absent_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker is a folder that comes late."""
    folder = tmp_path / "late"
    options = {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(tmp_path / "control"),
    }
    # Of a queue that is bound already in this process, kombu writes nothing to the folder.
    fleet = Told("late")
    polls = poller(fleet, "filesystem://", **options)
    for _ in range(2):
        polls.poll()
        assert fleet.readings == []
        assert fleet.sources == {"queues": False}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "queues cannot be read: broker filesystem://" in caplog.text
    assert "it is tried again every 15 s" in caplog.text
    folder.mkdir()
    send("late", "filesystem://", **options)
    polls.poll()
    assert fleet.readings == [QueueReading("late", 1, {0: 1})]
    assert fleet.sources == {"queues": True}


def test_an_error_of_a_broker_that_cannot_be_reached_has_no_password_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Told("q")
    poller(fleet, "unheard-of://user:s3cr3t@h").poll()
    assert fleet.sources == {"queues": False}
    assert "s3cr3t" not in caplog.text


def test_it_starts_without_waiting_and_stops() -> None:
    fleet = Told("q")
    polls = poller(fleet)
    polls.start()
    try:
        assert fleet.read.wait(timeout=30)
        assert fleet.readings == [QueueReading("q", 0, {0: 0})]
    finally:
        polls.stop()
