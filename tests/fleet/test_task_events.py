"""What task events add up to, in whatever order they come."""

from __future__ import annotations

import pytest

from celery_memory_exporter.common.report import Running
from tests import samples
from tests.fleet.stream import Stream, beats


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


def test_a_worker_that_is_gone_takes_what_it_had() -> None:
    stream = Stream().tell("received", uuid="1").tell("received", "b", uuid="2")
    stream.events.forget(stream.workers["a"])
    assert len(stream.events) == 1
