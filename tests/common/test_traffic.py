"""Counters by task type and queue."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.report import Running
from celery_memory_exporter.common.traffic import (
    COUNTERS,
    MAX_RUNNING,
    Counts,
    exception_class,
    running_by_type,
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ValueError('x')", "ValueError"),
        ("shop.errors.NoStock('x')", "NoStock"),
        ("<NoStock: 1>", "NoStock"),
        ("<shop.errors.NoStock object at 0x7f>", "NoStock"),
        (
            "WorkerLostError('Worker exited prematurely: signal 9 (SIGKILL) Job: 1.')",
            "WorkerLostError",
        ),
        ("TimeLimitExceeded(1,)", "TimeLimitExceeded"),
        ("reject requeue=False: sold out", "Reject"),
        ("ExceptionWithTraceback()", "ExceptionWithTraceback"),
        ("something went wrong", "UnknownException"),
        ("", "UnknownException"),
        ("日本(", "UnknownException"),
        (None, "UnknownException"),
        (7, "UnknownException"),
    ],
)
def test_the_class_of_an_exception_out_of_its_text(text: object, name: str) -> None:
    assert exception_class(text) == name


@pytest.mark.parametrize(
    ("traceback", "name"),
    [
        (
            "Traceback …\n  raise\nbilliard.exceptions.WorkerLostError: Worker exited: signal 9\n",
            "WorkerLostError",
        ),
        ("Traceback …\nKeyError", "KeyError"),
        ("", "UnknownException"),
        (None, "ExceptionWithTraceback"),
    ],
)
def test_the_class_of_a_wrapped_exception_out_of_its_traceback(
    traceback: object, name: str
) -> None:
    assert exception_class("ExceptionWithTraceback()", traceback) == name


def test_task_types_beyond_the_cap_are_one_and_counted() -> None:
    counts = Counts(max_tasks=2)
    for name in "abcdc":
        counts.count("task-received", name, "q", {})
    assert {(row.name, row.queue): row.received for row in counts.reports()} == {
        ("a", "q"): 1,
        ("b", "q"): 1,
        ("other", ""): 3,
    }
    assert counts.folded == 3


def test_queues_without_end_are_one_as_well() -> None:
    counts = Counts(max_tasks=2)
    for number in range(100):
        counts.count("task-received", "a", f"reply-{number}", {})
    assert len(counts.reports()) == 5
    assert sum(row.received for row in counts.reports()) == 100


def test_exceptions_beyond_the_cap_are_summed_as_other() -> None:
    counts = Counts(max_tasks=2, max_exceptions=2)
    for name in "ABCC":
        counts.count("task-failed", "t", "q", {"exception": f"{name}()"})
    assert counts.reports()[0].failed == {"A": 1, "B": 1, "other": 2}


def test_what_is_no_event_of_a_task_counts_nothing() -> None:
    counts = Counts(max_tasks=2)
    counts.count("task-cancelled", "t", "q", {})
    (row,) = counts.reports()
    assert (row.received, row.started, row.failed) == (0, 0, {})


def test_names_that_utf8_cannot_hold() -> None:
    counts = Counts(max_tasks=2)
    counts.count("task-received", "\ud800", "q", {})
    assert counts.reports()[0].name == "\\ud800"


def test_observations_land_in_their_buckets() -> None:
    counts = Counts(max_tasks=2, runtime=(0.1, 1.0))
    for runtime in (0.1, 0.2, 5.0, -1.0, "1", None):
        counts.count("task-succeeded", "t", "q", {"runtime": runtime})
    (row,) = counts.reports()
    assert (row.runtime.counts, row.runtime.sum, row.succeeded) == ([1, 1, 1], 5.3, 6)


EVENTS = st.lists(
    st.tuples(st.sampled_from(sorted(COUNTERS)), st.sampled_from("ab"), st.sampled_from("qr"))
)


@given(EVENTS)
def test_every_event_is_in_the_counter_of_its_kind(events: list[tuple[str, str, str]]) -> None:
    counts = Counts(max_tasks=2)
    for event, name, queue in events:
        counts.count(event, name, queue, {})
    told = Counter(event for event, _, _ in events)
    for event, field in COUNTERS.items():
        assert sum(getattr(each, field) for each in counts.reports()) == told[event]


@given(EVENTS)
def test_moving_a_queue_is_as_if_it_had_been_the_other_from_the_start(
    events: list[tuple[str, str, str]],
) -> None:
    moved, direct = Counts(max_tasks=2), Counts(max_tasks=2)
    for event, name, queue in events:
        moved.count(event, name, queue, {"runtime": 0.1})
        direct.count(event, name, "q", {"runtime": 0.1})
        moved.fail(name, queue, "ValueError")
        direct.fail(name, "q", "ValueError")
    moved.move("r", "q")
    for ours, theirs in zip(moved.reports(), direct.reports(), strict=True):
        assert dataclasses.replace(ours, runtime=theirs.runtime) == theirs
        assert ours.runtime.counts == theirs.runtime.counts
        assert ours.runtime.sum == pytest.approx(theirs.runtime.sum)


def test_what_is_cleared_begins_at_zero_and_the_cap_holds_for_the_names_so_far() -> None:
    counts = Counts(max_tasks=1)
    for name in ("a", "b"):
        counts.count("task-received", name, "q", {})
    counts.clear()
    assert counts.reports() == []
    for name in ("b", "a"):
        counts.count("task-received", name, "q", {})
    assert [(each.name, each.received) for each in counts.reports()] == [("a", 1), ("other", 1)]
    assert counts.folded == 2


@given(EVENTS)
def test_what_was_told_once_can_be_gone_on_with(events: list[tuple[str, str, str]]) -> None:
    before = Counts(max_tasks=2)
    for event, name, queue in events:
        before.count(event, name, queue, {"runtime": 0.5})
        before.fail(name, queue, "ValueError")
        before.totals(name, queue).queue_wait.observe(0.25)
    after = Counts(max_tasks=2)
    after.restore(map(dataclasses.asdict, before.reports()))
    assert after.reports() == before.reports()
    assert after.succeeded() == before.succeeded()
    before.count("task-succeeded", "a", "q", {"runtime": 0.5})
    after.count("task-succeeded", "a", "q", {"runtime": 0.5})
    assert after.reports() == before.reports()
    assert after.succeeded()["a"]["q"] >= 1


def test_the_longest_running_types_come_first_with_how_many_run() -> None:
    runs = [("a", 1.0), ("b", 5.0), ("a", 3.0)]
    assert running_by_type(runs) == [Running("b", 1, 5.0), Running("a", 2, 3.0)]


def test_no_more_types_run_than_are_shown() -> None:
    assert len(running_by_type((f"t{number}", 1.0) for number in range(1000))) == MAX_RUNNING
