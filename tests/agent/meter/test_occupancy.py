"""Who is at work in a process."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.meter.occupancy import Occupancy
from celery_memory_exporter.agent.meter.run import Run


def entered(occupancy: Occupancy) -> Run:
    run = Run()
    with occupancy.lock:
        occupancy.enter(run)
    return run


def test_a_run_by_itself_is_alone() -> None:
    occupancy = Occupancy()
    assert occupancy.idle
    for _ in range(2):
        run = entered(occupancy)
        assert not occupancy.idle
        assert run.alone
        assert occupancy.was_undisturbed(run)
        occupancy.leave(run)
        assert run.alone
    assert occupancy.idle


def test_of_two_runs_that_overlap_neither_is_alone() -> None:
    occupancy = Occupancy()
    first, second = entered(occupancy), entered(occupancy)
    assert [run.alone for run in (first, second)] == [True, False], "as far as is known on entering"
    occupancy.leave(second)
    occupancy.leave(first)
    assert [run.alone for run in (first, second)] == [False, False]
    assert occupancy.idle


def test_to_leave_twice_is_to_leave_once() -> None:
    occupancy = Occupancy()
    first, second = entered(occupancy), entered(occupancy)
    for _ in range(3):
        occupancy.leave(first)
    assert not occupancy.idle
    occupancy.leave(second)
    assert occupancy.idle


def test_a_run_that_never_entered_leaves_nothing() -> None:
    occupancy = Occupancy()
    occupancy.leave(Run())
    assert occupancy.idle
    assert entered(occupancy).alone


def test_the_agents_work_disturbs_the_runs_that_it_overlaps() -> None:
    occupancy = Occupancy()
    before = entered(occupancy)
    with occupancy.housekeeping():
        assert occupancy.working
        during = entered(occupancy)
        assert not occupancy.was_undisturbed(before)
    assert not occupancy.working
    assert occupancy.was_undisturbed(during), "it is the meter that asks ``working`` at its begin"
    assert occupancy.was_undisturbed(entered(occupancy))


def test_work_that_fails_is_over() -> None:
    occupancy = Occupancy()
    with pytest.raises(RuntimeError), occupancy.housekeeping():
        raise RuntimeError
    assert not occupancy.working


def test_what_disturbs_concerns_those_that_run_now() -> None:
    occupancy = Occupancy()
    now = entered(occupancy)
    occupancy.disturb()
    assert not occupancy.was_undisturbed(now)
    assert occupancy.was_undisturbed(entered(occupancy))
    assert not occupancy.working


def test_a_run_that_was_interrupted_as_it_entered_can_leave() -> None:
    occupancy, run = Occupancy(), Run()
    run.active = True  # the first thing that ``enter`` does
    occupancy.leave(run)
    assert not run.alone


@given(st.lists(st.integers(0, 9), max_size=40))
def test_a_run_is_alone_exactly_when_none_overlaps_it(steps: list[int]) -> None:
    """Each number enters when it is not there, and leaves when it is."""
    occupancy = Occupancy()
    inside: dict[int, Run] = {}
    overlapped: set[Run] = set()
    left: list[Run] = []
    for step in steps:
        if step in inside:
            occupancy.leave(inside[step])
            left.append(inside.pop(step))
            assert left[-1].alone == (left[-1] not in overlapped)
        else:
            inside[step] = entered(occupancy)
            if len(inside) > 1:
                overlapped.update(inside.values())
        assert occupancy.idle == (not inside)
