"""The agent in a pool child, with a pipe that does as it is told."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.heap.census import Census
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.worker.pool_child import ChildAgent
from celery_memory_exporter.agent.worker.records import (
    Bye,
    FiguresRecord,
    Hello,
    ProfileRecord,
    TotalsRecord,
    TypesRecord,
)
from tests.agent.worker.pipe import Pipe

HELPER = "celery-memory-agent"


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


@pytest.fixture
def child(pipe: Pipe) -> Iterator[ChildAgent]:
    child = make_child(pipe)
    yield child
    child.stop_helper()
    assert child.guard.errors == 0


def make_child(pipe: Pipe, slot: int = 0) -> ChildAgent:
    return ChildAgent(pipe.channel, Settings(), slot, None, Census(15.0, 60.0))


def run_once(child: ChildAgent, body: Any = lambda *_: None, name: str = "t") -> None:
    """One run, without the helper that may come up behind it."""
    trace = measured(child.meter, name, lambda *_: trace_ok_t(body(), None, 0.1, "None"))
    trace("uuid", (), {}, {})
    child.stop_helper()


def runs_told(pipe: Pipe) -> list[float]:
    return [array("d", record.row)[0] for record in pipe.of(TotalsRecord)]


def helpers() -> int:
    return sum(thread.name == HELPER for thread in threading.enumerate())


def test_a_child_says_hello_and_what_it_is_like(pipe: Pipe, child: ChildAgent) -> None:
    assert [type(record) for record in pipe.sent[:2]] == [Hello, TypesRecord]
    assert type(pipe.sent[-1]) is FiguresRecord
    (figures,) = [record.figures for record in pipe.of(FiguresRecord)]
    assert figures.gc_objects
    assert figures.peak_rss_bytes
    assert runs_told(pipe) == [], "calibration is none of the application's runs"


def test_each_run_is_told_at_once(pipe: Pipe, child: ChildAgent) -> None:
    for _ in range(3):
        run_once(child)
    assert runs_told(pipe) == [1, 2, 3]


def test_a_slot_says_which_task_runs_and_then_that_none_does(pipe: Pipe, child: ChildAgent) -> None:
    seen: list[Any] = []
    run_once(child, lambda: seen.append(pipe.states[-1]), name="shop.t")
    ((_, since, rss, peak), task) = seen[0]
    assert task == "shop.t"
    assert all(each > 0 for each in (since, rss, peak))
    ((_, since, _, _), task) = pipe.states[-1]
    assert (since, task) == (0.0, "")


def test_a_child_beyond_the_last_slot_works_without_one(pipe: Pipe) -> None:
    child = make_child(pipe, slot=-1)
    run_once(child)
    assert (runs_told(pipe), pipe.states) == ([1], [])


def test_a_run_that_ends_while_its_totals_are_sent_is_told_later(
    pipe: Pipe, child: ChildAgent
) -> None:
    pipe.full = True
    run_once(child)
    pipe.full = False

    def meanwhile() -> None:
        pipe.during = lambda: None
        run_once(child)  # finds that somebody sends already, and leaves it to them

    pipe.during = meanwhile
    child.send_pending()
    child.send_pending()
    assert runs_told(pipe)[-1] == 2


def test_what_found_the_pipe_full_is_sent_later(pipe: Pipe, child: ChildAgent) -> None:
    pipe.full = True
    run_once(child)
    run_once(child)
    assert runs_told(pipe) == []
    pipe.full = False
    child.send_pending()
    assert runs_told(pipe) == [2]


def test_while_a_run_is_active_the_helper_sends_nothing(pipe: Pipe, child: ChildAgent) -> None:
    run_once(child)
    sent: list[int] = []

    def body() -> None:
        before = len(pipe.sent)
        child.send_pending()
        sent.append(len(pipe.sent) - before)

    run_once(child, body)
    assert sent == [0]


def test_the_helper_tells_what_runs_left_behind(pipe: Pipe, child: ChildAgent) -> None:
    run_once(child)
    child.send_pending()
    assert pipe.of(ProfileRecord)[-1].key == ("t", "")


def test_the_last_words_are_all_that_is_pending_and_the_end(pipe: Pipe, child: ChildAgent) -> None:
    run_once(child)
    pipe.full = True
    run_once(child)
    pipe.full = False
    child.end(155)
    assert runs_told(pipe)[-1] == 2
    (bye,) = pipe.of(Bye)
    assert pipe.sent[-1] is bye
    assert bye.exit_code == 155
    assert bye.peak_bytes > 0


def test_a_child_that_nobody_hears_ends_all_the_same(pipe: Pipe, child: ChildAgent) -> None:
    pipe.full = True
    run_once(child)
    child.end(0)
    assert pipe.of(Bye) == []


def test_a_run_that_forks_is_left_out_and_the_next_one_begins_without_the_helper(
    pipe: Pipe, child: ChildAgent
) -> None:
    seen: list[int] = []

    def fork() -> None:
        seen.append(helpers())
        child.before_fork()
        seen.append(helpers())

    child.meter.auditor.budget = Budget(0.0, 1e9)
    trace = measured(child.meter, "forks", lambda *_: trace_ok_t(fork(), None, 0.1, "None"))
    for _ in range(3):
        trace("uuid", (), {}, {})
    # No helper yet; then the one that came up behind the first run, which the fork ends; then none.
    assert seen == [0, 0, 1, 0, 0, 0]
    assert helpers() == 1, "and behind the last run it is there again"
    assert child.meter.measurements().growth["forks", ""].audits == 2, "of three"


def test_in_a_process_that_a_task_forks_the_heap_is_collected(
    pipe: Pipe, child: ChildAgent
) -> None:
    child.after_fork()
    run_once(child)
    assert runs_told(pipe) == [1]
