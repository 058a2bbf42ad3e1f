"""All parts wired together, without a broker."""

from __future__ import annotations

import http.client
import logging
import socket
import threading

import pytest

from celery_memory_exporter.config.settings import Broker, Config, Processes, Queues
from celery_memory_exporter.exporter import Exporter
from celery_memory_exporter.web.server import bind

ALONE = Config(processes=Processes(enabled=False))


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def running(exporter: Exporter) -> set[str]:
    """Names of the threads that it has while it runs; it has none after."""
    before = threads()
    exporter.start()
    started = threads() - before
    exporter.stop()
    assert not started & threads()
    return started


def test_without_a_broker_the_process_table_is_the_source_and_it_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        exporter = Exporter(Config())
    assert "no broker is configured" in caplog.text
    assert running(exporter) == {"processes"}
    assert exporter.unready() == {}


def test_each_broker_has_events_queues_and_questions_of_its_own() -> None:
    brokers = tuple(Broker(name=name, url="memory://") for name in ("eu", "us"))
    parts = running(Exporter(Config(brokers=brokers, processes=Processes(enabled=False))))
    assert parts == {"events", "queues/eu", "queues/us", "inspection"}


def test_queues_can_be_left_out() -> None:
    config = Config(
        broker=Broker(url="memory://"),
        processes=Processes(enabled=False),
        queues=Queues(enabled=False),
    )
    assert running(Exporter(config)) == {"events"}


def test_a_broker_that_is_not_there_makes_it_unready() -> None:
    config = Config(broker=Broker(url="unheard-of://"), processes=Processes(enabled=False))
    exporter = Exporter(config)
    exporter.start()
    assert exporter.unready() == {"broker": "not connected", "queues": "cannot be read"}
    exporter.stop()


def test_what_it_tells_without_a_server() -> None:
    exporter = Exporter(ALONE)
    text = exporter.exposition()
    assert "celery_memory_exporter_workers 0.0\n" in text
    assert "process_resident_memory_bytes" in text


@pytest.fixture
def listener() -> socket.socket:
    return bind("127.0.0.1", 0)


def test_with_a_listener_it_answers_until_it_is_stopped(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    exporter = Exporter(ALONE, listener)
    exporter.start()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/-/ready")
    assert connection.getresponse().status == 200
    connection.close()
    exporter.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)
