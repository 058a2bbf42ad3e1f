"""Which queues there are, and for how long."""

from __future__ import annotations

from celery_memory_exporter.fleet.facts import QueueReading
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.queues import Queues
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import QueueView
from tests import samples

START, NEARLY, TOO_LATE = 0.0, 600.0, 601.0


def make_queues(configured: dict[str, tuple[str, ...]] | None = None, limit: int = 200) -> Queues:
    return Queues(Rules(samples.BOOT, Limits(queues=limit)), configured or {"": ()})


def test_a_queue_that_is_neither_consumed_nor_filled_for_too_long_is_not_there() -> None:
    queues = make_queues()
    queues.see("", "mail", START)
    assert queues.names("", NEARLY) == ["mail"]
    assert queues.names("", TOO_LATE) == []
    assert queues.views({}, TOO_LATE) == ()
    assert queues.names("", NEARLY) == ["mail"], "looking at it later has changed nothing"


def test_a_queue_stays_as_long_as_something_is_in_it() -> None:
    queues = make_queues()
    queues.see("", "mail", START)
    queues.apply("", [QueueReading("mail", 3)], 500.0)
    queues.apply("", [QueueReading("mail", 0)], 1_000.0)
    queues.forget(1_100.0)
    assert queues.names("", 1_100.0) == ["mail"]
    queues.forget(1_101.0)
    assert queues.names("", 1_100.0) == []


def test_configured_queues_are_always_there() -> None:
    queues = make_queues({"eu": (), "us": ("mail",)})
    queues.forget(1e9)
    assert (queues.names("eu", 1e9), queues.names("us", 1e9)) == ([], ["mail"])


def test_there_is_room_for_so_many_at_each_broker() -> None:
    queues = make_queues({"eu": (), "us": ()}, limit=1)
    assert [queues.see("eu", name, START) for name in ("a", "b", "c", "a")] == [
        True,
        True,
        False,
        True,
    ]


def test_room_is_made_by_forgetting() -> None:
    queues = make_queues(limit=1)
    queues.see("", "old", START)
    queues.forget(TOO_LATE)
    assert queues.see("", "new", TOO_LATE)


def test_a_poll_that_failed_leaves_nothing_to_see() -> None:
    queues = make_queues()
    queues.see("", "mail", START)
    queues.apply("", [QueueReading("mail", 3)], START)
    queues.apply("", [], 15.0)
    assert queues.views({}, 15.0) == (QueueView("", QueueReading("mail"), 0, 0),)


def test_one_brokers_readings_leave_anothers() -> None:
    queues = make_queues({"eu": ("mail",), "us": ("mail",)})
    queues.apply("eu", [QueueReading("mail", 3)], START)
    queues.apply("us", [], START)
    assert [view.reading.length for view in queues.views({}, START)] == [3, None]


def test_consumers_are_those_of_the_queue_at_its_broker() -> None:
    queues = make_queues({"eu": ("mail",), "us": ("mail",)})
    views = queues.views({("us", "mail"): (2, 8)}, START)
    assert [(view.broker, view.workers, view.processes) for view in views] == [
        ("eu", 0, 0),
        ("us", 2, 8),
    ]
