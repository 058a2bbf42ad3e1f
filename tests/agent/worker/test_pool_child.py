"""The agent in a pool child, with a pipe that does as it is told, and a map with room for a few
task types, or for none."""

from __future__ import annotations

import os
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
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.worker.inheritance import Inheritance
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
    yield from ended(make_child(pipe))


def ended(child: ChildAgent) -> Iterator[ChildAgent]:
    """The child, which has to have met no error when its test is over."""
    yield child
    child.stop_helper()
    assert child.guard.errors == 0


def make_child(pipe: Pipe, slot: int = 0) -> ChildAgent:
    """Without its helper: what that does, tests do at their time."""
    inheritance = Inheritance.of(pipe.channel, Settings(), Readings(), None)
    child = ChildAgent(inheritance, slot, Census(15.0, 60.0))
    child.stop_helper()
    return child


def run_once(child: ChildAgent, body: Any = lambda *_: None, name: str = "t") -> None:
    """One run, without the helper that may come up behind it."""
    trace = measured(child.meter, name, lambda *_: trace_ok_t(body(), None, 0.1, "None"))
    trace("uuid", (), {}, {})
    child.stop_helper()


@pytest.fixture
def narrow() -> Pipe:
    """Without a row in the map."""
    return Pipe(rows=0)


@pytest.fixture
def apart(narrow: Pipe) -> Iterator[ChildAgent]:
    """A child that has to tell all by the pipe."""
    yield from ended(make_child(narrow))


def runs_told(pipe: Pipe) -> list[float]:
    return [array("d", record.row)[0] for record in pipe.of(TotalsRecord)]


def runs_in_rows(pipe: Pipe) -> dict[str, int]:
    return {row.key[0]: row.totals.runs for row in pipe.shared.rows()}


def helpers() -> int:
    return sum(thread.name == HELPER for thread in threading.enumerate())


def test_a_child_says_hello_and_what_it_is_like(pipe: Pipe, child: ChildAgent) -> None:
    assert [type(record) for record in pipe.sent] == [Hello, FiguresRecord]
    (figures,) = [record.figures for record in pipe.of(FiguresRecord)]
    assert figures.gc_objects is None, "objects are counted later: at the fork, each job waits"
    assert figures.peak_rss_bytes
    assert runs_in_rows(pipe) == {}, "calibration is none of the application's runs"


def test_a_child_that_waits_counts_its_objects(pipe: Pipe, child: ChildAgent) -> None:
    child.send_pending()
    assert pipe.of(TypesRecord)
    assert pipe.of(FiguresRecord)[-1].figures.gc_objects


def test_a_successor_has_no_credit_of_its_own(pipe: Pipe, child: ChildAgent) -> None:
    budget = child.meter.auditor.budget
    before = budget.left(0.0)
    for _ in range(5):
        run_once(child)
    assert budget.spent > 0
    child.end(0)
    (successor,) = ended(make_child(pipe))
    assert successor.meter.auditor.budget.spent == budget.spent
    assert successor.meter.auditor.budget.left(0.0) < before
    assert successor.meter.busy.total(0.0) > child.meter.busy.seconds
    (other,) = ended(make_child(pipe, slot=1))
    assert other.meter.auditor.budget.spent == 0, "each slot has its own account"


def test_each_run_is_in_the_map_at_once_and_nothing_of_it_in_the_pipe(
    pipe: Pipe, child: ChildAgent
) -> None:
    seen = []
    before = len(pipe.sent)
    for _ in range(3):
        run_once(child)
        seen.append(runs_in_rows(pipe))
    assert seen == [{"t": 1}, {"t": 2}, {"t": 3}]
    assert len(pipe.sent) == before


def test_types_without_a_row_are_told_through_the_pipe_after_each_run(
    pipe: Pipe, child: ChildAgent
) -> None:
    for name in "abcd" * 2:
        run_once(child, name=name)
    assert runs_in_rows(pipe) == {"a": 2, "b": 2, "c": 2}
    assert runs_told(pipe) == [1, 2]


def test_a_slot_says_which_task_runs_and_then_that_none_does(pipe: Pipe, child: ChildAgent) -> None:
    seen: list[Any] = []
    run_once(child, lambda: seen.extend(pipe.shared.states()), name="shop.t")
    (state,) = seen
    assert (state.pid, state.task) == (os.getpid(), "shop.t")
    assert all(each > 0 for each in (state.since, state.rss_bytes, state.peak_bytes))
    assert [each.since for each in pipe.shared.states()] == [0.0]


def test_a_child_beyond_the_last_slot_works_without_one(pipe: Pipe) -> None:
    child = make_child(pipe, slot=-1)
    run_once(child)
    assert (runs_told(pipe), pipe.shared.states()) == ([1], [])


def test_a_run_that_ends_while_its_totals_are_sent_is_told_later(
    narrow: Pipe, apart: ChildAgent
) -> None:
    narrow.full = True
    run_once(apart)
    narrow.full = False

    def meanwhile() -> None:
        narrow.during = lambda: None
        run_once(apart)  # finds that somebody sends already, and leaves it to them

    narrow.during = meanwhile
    apart.send_pending()
    apart.send_pending()
    assert runs_told(narrow)[-1] == 2


def test_what_found_the_pipe_full_is_sent_later(narrow: Pipe, apart: ChildAgent) -> None:
    narrow.full = True
    run_once(apart)
    run_once(apart)
    assert runs_told(narrow) == []
    narrow.full = False
    apart.send_pending()
    assert runs_told(narrow) == [2]


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


def test_the_last_words_are_all_that_is_pending_and_the_end(
    narrow: Pipe, apart: ChildAgent
) -> None:
    run_once(apart)
    narrow.full = True
    run_once(apart)
    narrow.full = False
    apart.end(155)
    assert runs_told(narrow)[-1] == 2
    (bye,) = narrow.of(Bye)
    assert narrow.sent[-1] is bye
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


def test_what_runs_on_in_a_process_that_a_task_forks_is_none_of_the_childs_runs(
    pipe: Pipe, child: ChildAgent
) -> None:
    run_once(child)
    child.after_fork()
    run_once(child)
    assert runs_in_rows(pipe) == {"t": 1}
    assert child.meter.measurements().totals["t", ""].runs == 2
