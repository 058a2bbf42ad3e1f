"""What task events add up to, in whatever order they come and whatever they lack."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.message_times import unix_time
from celery_memory_exporter.common.report import Running, Traffic
from celery_memory_exporter.common.traffic import COUNTERS, Counts
from celery_memory_exporter.fleet.task_events import MAX_LATE, TaskEvents, WorkerTasks
from tests import samples

KINDS = ("task-sent", *COUNTERS, "task-failed")


def a_worker() -> WorkerTasks:
    return WorkerTasks(Counts(max_tasks=200))


class Stream:
    """Events of two workers, by short names."""

    def __init__(self, max_in_flight: int = 100) -> None:
        self.events = TaskEvents(tasks_in_flight=max_in_flight, default_name="celery")
        self.workers = {"a": a_worker(), "b": a_worker()}
        self.now = 0.0

    def tell(self, kinds: str, worker: str = "a", **changes: Any) -> Stream:
        for each in kinds.split():
            event = samples.task_event(f"task-{each}", **changes)
            if each == "sent":
                self.events.send(event)
            else:
                self.events.apply(self.workers[worker], f"task-{each}", event, None, self.now)
        return self

    def row(self, worker: str = "a") -> Traffic:
        (row,) = self.workers[worker].counts.reports()
        return row

    def ignored(self) -> dict[str, int]:
        return {reason: count for reason, count in self.events.ignored.items() if count}


def test_a_task_from_its_client_to_its_end() -> None:
    stream = Stream().tell("sent received started succeeded")
    row = stream.row()
    assert (row.name, row.queue) == ("shop.send", "slow")
    assert (row.received, row.started, row.succeeded) == (1, 1, 1)
    assert (row.runtime.sum, row.queue_wait.sum) == (0.3, 0.25)
    assert len(stream.events) == 0
    assert stream.ignored() == {}


def test_without_a_clients_event_the_queue_is_the_default_one_and_no_wait_is_told() -> None:
    row = Stream().tell("received started").row()
    assert (row.queue, sum(row.queue_wait.counts)) == ("celery", 0)


def test_the_only_queue_of_a_worker_is_its_tasks() -> None:
    stream = Stream()
    stream.events.apply(
        stream.workers["a"], "task-received", samples.task_event("task-received"), "mine", 0.0
    )
    assert stream.row().queue == "mine"


def test_waiting_begins_when_a_task_is_due() -> None:
    stream = (
        Stream().tell("sent").tell("received", eta="1970-01-01T00:16:39.9+00:00").tell("started")
    )
    assert stream.row().queue_wait.sum == pytest.approx(0.1)


def test_success_that_overtakes_the_start() -> None:
    stream = Stream().tell("received succeeded started")
    assert (stream.row().started, stream.row().succeeded, stream.ignored()) == (1, 1, {})
    assert stream.workers["a"].running == {}
    assert stream.workers["a"].prefetched == 0
    assert stream.tell("started").ignored() == {"unknown_task": 1}


def test_a_retry_that_is_received_before_the_run_that_asked_for_it_has_ended() -> None:
    stream = (
        Stream()
        .tell("received started")
        .tell("received", "b")
        .tell("retried")
        .tell("started succeeded", "b")
    )
    assert (
        stream.row("a").retried,
        stream.row("b").received,
        stream.row("b").started,
        stream.row("b").succeeded,
    ) == (1, 1, 1, 1)
    assert (stream.ignored(), len(stream.events)) == ({}, 0)


def test_the_same_by_the_same_worker() -> None:
    stream = Stream().tell("received started received retried started succeeded")
    row = stream.row()
    assert (row.received, row.started, row.retried, row.succeeded) == (2, 2, 1, 1)
    assert (stream.ignored(), len(stream.events), stream.workers["a"].prefetched) == ({}, 0, 0)


def test_a_task_that_is_retried_keeps_its_name_and_queue_and_waits_anew() -> None:
    stream = Stream().tell("sent received started retried")
    assert (len(stream.events), stream.workers["a"].running, stream.workers["a"].prefetched) == (
        1,
        {},
        0,
    )
    row = stream.tell("received started succeeded", "b").row("b")
    assert (row.queue, row.received, row.succeeded, sum(row.queue_wait.counts)) == ("slow", 1, 1, 0)
    assert (stream.ignored(), len(stream.events)) == ({}, 0)
    row = Stream().tell("sent received started retried revoked").row()
    assert (row.retried, row.revoked) == (1, 1), "as one that expires before its next run"


@pytest.mark.parametrize(
    ("kinds", "exception"),
    [
        ("failed rejected", "reject requeue=False: bad"),  # Celery 5.7
        ("failed rejected", "TimeLimitExceeded(10)"),  # acks_on_timeout=False
        ("rejected failed", "ValueError('bad')"),  # acks_on_failure=False
    ],
)
def test_a_task_that_fails_and_is_rejected_is_both(kinds: str, exception: str) -> None:
    stream = Stream().tell("received started").tell(kinds, exception=exception)
    row = stream.row()
    assert (row.rejected, sum(row.failed.values()), stream.ignored(), len(stream.events)) == (
        1,
        1,
        {},
        0,
    )
    assert stream.workers["a"].ended == {"shop.send": 1}


def test_a_time_limit_that_is_told_twice_is_one_failure() -> None:
    wrapped = {
        "exception": "ExceptionWithTraceback()",
        "traceback": "…\nbilliard.exceptions.TimeLimitExceeded: TimeLimitExceeded(1,)\n",
    }
    stream = Stream().tell("received started failed failed", **wrapped)
    assert (stream.row().failed, stream.ignored()) == ({"TimeLimitExceeded": 1}, {"repeated": 1})
    assert stream.tell("received started failed", **wrapped).row().failed == {
        "TimeLimitExceeded": 2
    }, "the same task, sent again"


@pytest.mark.parametrize(
    "kind", ["started", "succeeded", "failed", "retried", "rejected", "revoked"]
)
def test_a_task_that_nobody_named_is_counted_as_such_and_makes_no_series(kind: str) -> None:
    stream = Stream().tell(kind)
    assert stream.ignored() == {"unknown_task": 1}
    assert stream.workers["a"].counts.reports() == []


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
    assert len(stream.events._late) == MAX_LATE


def test_what_runs_and_for_how_long() -> None:
    stream = Stream().tell("received started", uuid="1")
    stream.now = 5.0
    stream.tell("received started", uuid="2")
    assert stream.workers["a"].tell_running(7.0) == [Running("shop.send", 2, 7.0)]
    assert stream.tell("failed", uuid="1").workers["a"].tell_running(7.0) == [
        Running("shop.send", 1, 2.0)
    ]


def test_runs_beyond_those_that_a_heartbeat_tells_of_have_ended_unheard() -> None:
    """As ignored tasks do: Celery makes no event of their end."""
    stream = Stream()
    for second in range(20):
        stream.now = float(second)
        stream.tell("received started", uuid=f"{second}")
    stream.events.beat(stream.workers["a"], 20, 20, 20.0)
    assert len(stream.workers["a"].running) == 20
    stream.events.beat(stream.workers["a"], 20, 1, 20.0)
    assert len(stream.workers["a"].running) == len(stream.events) == 5, (
        "those of the last seconds may be on their way"
    )
    stream.events.beat(stream.workers["a"], 20, 0, 60.0)
    assert len(stream.workers["a"].running) == len(stream.events) == 0


def beats(worker: WorkerTasks, *told: tuple[int, int]) -> int | None:
    """Heartbeats with the worker's own count, each after so many events."""
    for processed, events in told:
        for _ in range(events):
            worker.hear("task-started")
        worker.beat(processed)
    return worker.lost


def test_what_a_worker_started_and_nobody_heard_of_is_lost() -> None:
    worker = a_worker()
    assert beats(worker, (100, 0)) is None, "it may send no events at all"
    assert beats(worker, (101, 1), (110, 6), (111, 1), (112, 1)) == 0, (
        "the last ones may be on their way"
    )
    assert beats(worker, (113, 1)) == 3
    assert beats(worker, (200, 50), (201, 38), (202, 1), (203, 1), (204, 1)) == 3, (
        "they were only late"
    )


def test_all_events_of_some_seconds_are_lost() -> None:
    assert beats(a_worker(), (1, 1), (50, 0), (99, 0), (100, 1), (101, 1), (102, 1), (102, 0)) == 98


@pytest.mark.parametrize(
    "told",
    [
        # disable_events, then enable_events
        [
            (1, 1),
            (2, 1),
            *((3 + number, 0) for number in range(100)),
            *((103 + number, 1) for number in range(10)),
        ],
        [
            (1, 1),
            (2, 1),
            (0, 0),
            *((number, 0) for number in range(100)),
        ],  # started anew, without -E
        [(100, 0), *((300 + number, 1) for number in range(10))],  # enable_events in mid-life
        [
            (5_000 + number if number % 2 else 4_000 + number, 1) for number in range(20)
        ],  # two workers of one name
        [
            (0, 0),
            (5, 5),
            (10, 5),
            (10, 0),
            (10, 0),
            (15, 5),
            (15, 0),
            (15, 0),
            (20, 0),
            (20, 5),
        ],  # with pauses
        [
            (24 * number, 24 if number % 2 else 0 if number < 2 else 24) for number in range(1, 20)
        ],  # in batches
    ],
)
def test_nothing_is_lost_that_was_never_sent(told: list[tuple[int, int]]) -> None:
    assert beats(a_worker(), *told) == 0


def test_a_restarted_worker_has_none_of_what_it_had_and_what_was_lost_stays() -> None:
    stream = Stream().tell("received started", uuid="1").tell("received", uuid="2")
    worker = stream.workers["a"]
    assert beats(worker, (1, 1), (9, 1), (10, 1), (10, 0), (10, 0)) == 7
    stream.events.beat(worker, 2, 0, 0.0)
    assert (len(stream.events), len(worker.running), worker.prefetched, worker.lost) == (0, 0, 0, 7)
    assert beats(worker, (3, 1), (4, 1), (5, 1), (6, 1), (7, 1)) == 7


def test_a_task_that_is_replaced_is_another_one() -> None:
    stream = (
        Stream()
        .tell("received started", name="shop.first")
        .tell("received", name="shop.second")
        .tell("started succeeded")
    )
    assert {
        row.name: (row.received, row.succeeded) for row in stream.workers["a"].counts.reports()
    } == {
        "shop.first": (1, 0),
        "shop.second": (1, 1),
    }


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


def test_a_worker_that_is_gone_takes_what_it_had() -> None:
    stream = Stream().tell("received", uuid="1").tell("received", "b", uuid="2")
    stream.events.forget(stream.workers["a"])
    assert len(stream.events) == 1


EVENTS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.sampled_from("12345"), st.sampled_from("ab")), max_size=60
)


@given(EVENTS)
def test_whatever_comes_nothing_is_counted_twice_or_in_the_air(
    events: list[tuple[str, str, str]],
) -> None:
    stream = Stream(max_in_flight=3)
    for kind, uuid, worker in events:
        stream.tell(kind.removeprefix("task-"), worker, uuid=uuid)
    rows = [row for worker in stream.workers.values() for row in worker.counts.reports()]
    counted = sum(
        row.received + row.started + row.succeeded + row.retried + row.rejected + row.revoked
        for row in rows
    )
    counted += sum(sum(row.failed.values()) for row in rows)
    of_workers = sum(kind != "task-sent" for kind, _, _ in events)
    assert (
        counted + stream.events.ignored["unknown_task"] + stream.events.ignored["repeated"]
        == of_workers
    )
    assert len(stream.events._tasks) <= 3
    assert len(stream.events._sent) <= 3
    assert all(worker.prefetched >= 0 for worker in stream.workers.values())
    owned = [task for task in stream.events._tasks.values() if task.owner is not None]
    assert sum(worker.prefetched for worker in stream.workers.values()) == sum(
        not task.started for task in owned
    )
    assert sum(len(worker.running) for worker in stream.workers.values()) == sum(
        task.started for task in owned
    )


JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers(), max_size=2)
)


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10", 10.0),
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T02:00:10.5+02:00", 10.5),
        ("1970-01-01T00:00:10.123456789+00:00", 10.123456),
        ("soon", None),
        (None, None),
    ],
)
def test_an_eta_as_celery_writes_it(text: str | None, seconds: float | None) -> None:
    assert unix_time(text) == seconds
