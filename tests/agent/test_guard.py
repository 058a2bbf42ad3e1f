"""The agent's own errors: counted, logged once, and nobody else's."""

from __future__ import annotations

import logging

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery_memory_exporter.agent.guard import Guard, guarded


class Part:
    def __init__(self) -> None:
        self.guard = Guard()

    @guarded
    def fail(self) -> int:
        raise RuntimeError("inside the agent")

    @guarded
    def stop(self) -> None:
        raise SystemExit


def test_the_agents_errors_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    part = Part()
    assert [part.fail(), part.fail(), part.fail()] == [None] * 3
    assert part.guard.errors == 3
    assert len(caplog.records) == 1


def test_the_workers_own_way_to_stop_passes() -> None:
    with pytest.raises(SystemExit):
        Part().stop()


def test_a_soft_time_limit_passes() -> None:
    """It is the task's, wherever it is raised."""

    class Interrupted(Part):
        @guarded
        def work(self) -> None:
            raise SoftTimeLimitExceeded

    part = Interrupted()
    with pytest.raises(SoftTimeLimitExceeded):
        part.work()
    assert part.guard.errors == 0


def test_each_place_is_logged_by_its_own_name(caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard()
    for place in ("one", "two", "one"):
        try:
            raise RuntimeError(place)
        except RuntimeError:
            guard.note(place)
    assert [record.args for record in caplog.records] == [("one",), ("two",)]
    assert guard.errors == 3


def test_a_logging_handler_that_fails_fails_no_task() -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ConnectionError("the log server is gone")

    logger, handler, guard = logging.getLogger("celery_memory_exporter.agent"), Broken(), Guard()
    logger.addHandler(handler)
    try:
        guard.note("a test")
    finally:
        logger.removeHandler(handler)
    assert guard.errors == 1
