"""Task events that are odd, lost, or too many: what is remembered is bounded, and nothing counts
twice."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.traffic import COUNTERS
from celery_memory_exporter.fleet.task_events import MAX_LATE
from tests import samples
from tests.fleet.stream import Stream

KINDS = ("task-sent", *COUNTERS, "task-failed")
EVENTS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from("12345"), st.sampled_from("ab")), max_size=60
)
JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers(), max_size=2)
)


def counted(stream: Stream) -> int:
    """All that any counter of any worker has."""
    rows = [row for worker in stream.workers.values() for row in worker.counts.reports()]
    return sum(
        sum(getattr(row, field) for field in COUNTERS.values()) + sum(row.failed.values())
        for row in rows
    )


def test_events_that_lack_fields() -> None:
    stream = (
        Stream()
        .tell("received", name=None)
        .tell("started", uuid=None)
        .tell("started", uuid="x" * 300)
    )
    assert stream.ignored() == {"malformed": 3}
    row = stream.tell("received started").tell("succeeded", runtime=None).row()
    assert (row.succeeded, sum(row.runtime.counts)) == (1, 0)
    row = stream.tell("received started").tell("failed", exception=None).row()
    assert row.failed == {"UnknownException": 1}


def test_the_oldest_task_is_forgotten_when_there_are_too_many() -> None:
    stream = Stream(max_in_flight=100)
    for number in range(150):
        stream.tell("received", uuid=f"{number}")
    assert (len(stream.events), stream.workers["a"].prefetched, stream.ignored()) == (
        100,
        100,
        {"evicted": 50},
    )


def test_runs_that_never_start_are_not_remembered_without_end() -> None:
    stream = Stream(max_in_flight=10)
    for number in range(MAX_LATE + 50):
        stream.tell("received succeeded", uuid=f"{number}")
    stream.tell("started", uuid="49")
    assert stream.ignored() == {"unknown_task": 1}, "the oldest ones are forgotten"
    stream.tell("started", uuid="50")
    assert stream.row().started == 1


def test_what_is_sent_to_workers_with_an_agent_pushes_nothing_out() -> None:
    stream = Stream(max_in_flight=10).tell("received started", uuid="long")
    for number in range(100):
        stream.tell("sent", uuid=f"{number}")
    assert len(stream.events) == 11
    stream.events.skip("task-succeeded", samples.task_event("task-succeeded", uuid="99"))
    assert len(stream.events) == 10
    assert stream.tell("succeeded", uuid="long").row().succeeded == 1


def test_names_without_end_are_cut_and_capped() -> None:
    stream = Stream(max_in_flight=10_000)
    for number in range(1_000):
        stream.tell("received started", uuid=f"{number}", name=f"\ud800{number}" + "x" * 300)
        stream.tell("retried", "b", uuid=f"{number}")
    told = stream.workers["a"].tell_running(1.0)
    assert len(told) == 50
    assert {len(each.name) for each in told} == {120}
    assert len(stream.workers["b"].ended) == 257


@given(EVENTS)
def test_whatever_comes_nothing_is_counted_twice_or_in_the_air(
    events: list[tuple[str, str, str]],
) -> None:
    stream = Stream(max_in_flight=3)
    for kind, uuid, worker in events:
        stream.tell(kind.removeprefix("task-"), worker, uuid=uuid)
    of_workers = sum(kind != "task-sent" for kind, _, _ in events)
    ignored = stream.events.ignored
    assert counted(stream) + ignored["unknown_task"] + ignored["repeated"] == of_workers


@given(EVENTS)
def test_what_workers_have_in_flight_goes_with_them_and_is_bounded(
    events: list[tuple[str, str, str]],
) -> None:
    stream = Stream(max_in_flight=3)
    for kind, uuid, worker in events:
        stream.tell(kind.removeprefix("task-"), worker, uuid=uuid)
    assert all(worker.prefetched >= 0 for worker in stream.workers.values())
    before, theirs = len(stream.events), [each.in_flight for each in stream.workers.values()]
    assert before <= 3 + 3  # received, and sent alone
    stream.events.forget(*stream.workers.values())
    assert len(stream.events) == before - sum(theirs)
    assert [each.in_flight for each in stream.workers.values()] == [0, 0]


@given(
    st.sampled_from(KINDS),
    st.dictionaries(st.sampled_from(sorted(samples.task_event("task-sent"))), JUNK),
    JUNK,
    JUNK,
    JUNK,
)
def test_no_event_is_too_odd(
    kind: str, changes: dict[str, Any], runtime: object, exception: object, eta: object
) -> None:
    stream = Stream().tell("sent received started")
    stream.tell(
        kind.removeprefix("task-"),
        **{**changes, "runtime": runtime, "exception": exception, "eta": eta},
    )
    for row in stream.workers["a"].counts.reports():
        assert isinstance(row.name, str)
