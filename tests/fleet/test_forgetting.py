"""Reading changes nothing and shows nothing that has expired; the next writing forgets it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from celery_memory_exporter.fleet.facts import QueueReading, WorkerFacts
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import Snapshot
from tests import samples
from tests.fleet.believed import make_fleet, run_by_events

RULES = Rules(
    samples.BOOT,
    Limits(workers=4, tasks_per_worker=1, senders=1),
    expire_after_seconds=100.0,
    senders=True,
    worker_groups=((re.compile("celery@web.*"), "celery@web"),),
)
#: Kinds of telling: the fleet, a worker, and when.
TELL: dict[str, Callable[[Fleet, str, float], object]] = {
    "report": lambda fleet, worker, now: fleet.apply_report(
        samples.report(worker=worker, sequence=1 + int(now)), now
    ),
    "heartbeat": lambda fleet, worker, now: fleet.apply_worker_event(
        worker, "worker-heartbeat", 1, now, processed=int(now)
    ),
    "run": lambda fleet, worker, now: run_by_events(fleet, worker, f"{worker} {now}", now),
    "receive": lambda fleet, worker, now: fleet.apply_task_event(
        "task-received",
        samples.task_event("task-received", hostname=worker, uuid=f"{worker} {now}"),
        now,
    ),
    "send": lambda fleet, worker, now: fleet.apply_task_event(
        "task-sent", samples.task_event("task-sent", hostname=worker, uuid=f"{now}"), now
    ),
    "table": lambda fleet, worker, now: fleet.apply_processes([samples.table(worker)], now),
    "ask": lambda fleet, worker, now: fleet.apply_inspection(
        "", {worker: WorkerFacts("prefork", 4, 4, (worker,))}, now
    ),
    "poll": lambda fleet, worker, now: fleet.apply_queues("", [QueueReading("slow", 1)], now),
}
Step = tuple[str, str, float]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(sorted(TELL)),
        st.sampled_from(("celery@web1", "celery@web2", "celery@db", "celery@mail")),
        st.sampled_from((0.0, 1.0, 60.0, 101.0)),
    ),
    max_size=15,
)


def told(steps: list[Step], after_each: Callable[[Fleet, float], object]) -> tuple[Fleet, float]:
    """A fleet that was told all that, and when that ended."""
    fleet, now = Fleet(RULES), 0.0
    for what, worker, pause in steps:
        now += pause
        TELL[what](fleet, worker, now)
        after_each(fleet, now)
    return fleet, now


def read(fleet: Fleet, now: float) -> tuple[Snapshot, list[str], set[str]]:
    """All that can be asked."""
    return fleet.snapshot(now), fleet.queue_names("", now), fleet.without_agent("", now)


@given(STEPS, st.sampled_from((0.0, 50.0, 1_000.0)))
def test_reading_changes_nothing_whenever_it_is(steps: list[Step], later: float) -> None:
    watched, now = told(steps, lambda fleet, now: read(fleet, now + later))
    alone, _ = told(steps, lambda fleet, now: None)
    assert read(watched, now) == read(alone, now)


@given(STEPS, st.sampled_from((1.0, 50.0, 101.0, 1_000.0)))
@example([("run", "celery@web1", 0.0), ("heartbeat", "celery@web2", 60.0)], 50.0)
@example([("report", "celery@web1", 0.0), ("heartbeat", "celery@web1", 60.0)], 50.0)
def test_what_a_writing_forgets_was_not_shown_before(steps: list[Step], later: float) -> None:
    fleet, now = told(steps, lambda fleet, now: None)
    before = read(fleet, now + later)
    fleet.apply_inspection("", {}, now + later)  # tells nothing, and forgets
    assert read(fleet, now + later) == before


def test_of_a_silent_fleet_nothing_is_shown_though_nothing_is_written() -> None:
    steps = [("receive", "celery@db", 0.0), *((what, "celery@web1", 0.0) for what in TELL)]
    fleet, now = told(steps, lambda fleet, now: None)
    shown = fleet.snapshot(now + 100.0)
    assert shown.workers
    assert shown.queues
    assert shown.sent
    assert shown.tasks_in_flight == 2
    nothing = dataclasses.replace(shown, groups=(), queues=(), sent=())
    sent_alone = dataclasses.replace(nothing, tasks_in_flight=1)  # it is no worker's
    assert fleet.snapshot(now + 101.0) == sent_alone


def test_workers_that_come_and_go_are_shown_until_they_are_silent() -> None:
    fleet = make_fleet()
    for number in range(500):
        fleet.apply_report(samples.report(worker=f"celery@pod-{number}"), float(number))
    assert len(fleet.snapshot(500.0).workers) == 500
    assert len(fleet.snapshot(1_000.0).workers) == 100
    assert fleet.snapshot(2_000.0).workers == ()


def test_a_worker_that_was_forgotten_begins_anew() -> None:
    fleet = make_fleet()
    fleet.apply_report(samples.report(sequence=900), 0.0)
    assert fleet.apply_report(samples.report(sequence=1), 601.0) is None
