"""The application's heap and its collector are what they are without audits."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery_memory_exporter.agent.audit.audit import MOST_LOOKS
from celery_memory_exporter.agent.audit.collector import INCREMENTAL, QUIET_OBJECTS
from celery_memory_exporter.agent.stats.growth import RUNS_TO_REFILL
from celery_memory_exporter.agent.stats.profile import Column, ProfileRow
from tests.agent.audit.harness import (
    WARM,
    Thing,
    collector_state,
    figures_of,
    keep,
    make_meter,
    mostly,
    profile_of,
    returning,
    run,
    survivors_of,
    totals_of,
)

pytestmark = pytest.mark.usefixtures("heap_as_it_was")


def cycle() -> weakref.ref[Thing]:
    """A thing that only a collection frees."""
    thing = Thing()
    thing.myself = thing  # type: ignore[attr-defined]
    return weakref.ref(thing)


# --- what the application sees -------------------------------------------------------------------


def test_a_task_sees_the_heap_as_it_is() -> None:
    things = [Thing() for _ in range(500)]
    gc.collect()
    seen: list[tuple[int, int, int]] = []

    def look() -> None:
        found = sum(type(each) is Thing for each in gc.get_objects())
        holders = sum(each is things for each in gc.get_referrers(things[0]))
        seen.append((found, holders, gc.get_freeze_count()))

    meter = make_meter()
    frozen = gc.get_freeze_count()
    run(meter, returning(look), times=20)
    assert set(seen) == {(500, 1, frozen)}
    assert profile_of(meter).audits == 20


def test_a_task_that_collects_frees_what_earlier_runs_left() -> None:
    ghosts: list[weakref.ref[Thing]] = []

    def collect() -> None:
        gc.collect()
        assert not any(ghost() for ghost in ghosts)
        ghosts.append(cycle())

    run(make_meter(), returning(collect), times=20)


def test_an_application_that_froze_its_heap_is_audited_and_its_heap_stays_frozen() -> None:
    gc.freeze()
    frozen = gc.get_freeze_count()
    meter = make_meter()
    try:
        run(meter, returning(lambda: keep(20, Thing)), times=20)
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()
    assert profile_of(meter).audits == 20
    assert survivors_of(meter) == {f"{Thing.__module__}.Thing": 15 * 20}


def test_where_the_application_switched_its_collector_off_no_finalizer_runs() -> None:
    gc.disable()
    try:
        ghosts = [cycle() for _ in range(3)]
        meter = make_meter()
        run(meter, returning(lambda: ghosts.append(cycle())), times=20)
        assert all(ghost() for ghost in ghosts)
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert profile_of(meter).audits == 20


def test_audits_start_no_full_collection() -> None:
    before = gc.get_stats()[2]["collections"]
    run(make_meter(), returning(lambda: None), times=300)
    # Python may find one due on its own, after so many young ones.
    assert gc.get_stats()[2]["collections"] - before < 300 / 10


# --- what the application does ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("does", "undo", "reason"),
    [
        (gc.collect, lambda: None, "collected"),
        (gc.freeze, gc.unfreeze, "frozen"),
        (gc.disable, gc.enable, "switched"),
        (lambda: gc.set_threshold(500, 7, 3), lambda: gc.set_threshold(*DEFAULT), "threshold"),
        (lambda: gc.set_debug(gc.DEBUG_STATS), lambda: gc.set_debug(0), "debug"),
    ],
)
def test_what_a_task_does_to_its_collector_stands_and_the_run_says_nothing(
    does: Callable[[], object], undo: Callable[[], object], reason: str
) -> None:
    states: list[tuple[Any, ...]] = []

    def task() -> None:
        does()
        states.append(collector_state())

    meter = make_meter()
    try:
        run(meter, returning(task))
        assert collector_state()[:3] == states[0][:3]
        assert (gc.get_freeze_count() > 1_000) == (reason == "frozen")
    finally:
        undo()
    assert profile_of(meter).audits == 0
    assert meter.auditor.discarded == {reason: 1}


DEFAULT = gc.get_threshold()


def test_runs_that_allocate_much_are_audited_with_a_quiet_collector() -> None:
    kept: list[object] = []

    def task() -> None:
        rows = [[number] for number in range(20 * DEFAULT[0])]
        kept.append(Thing())
        rows.clear()

    meter = make_meter()
    run(meter, returning(task), times=20)
    assert meter.auditor.discarded == {"collected": 1}
    assert profile_of(meter).audits >= 10
    assert gc.get_threshold() == DEFAULT


@pytest.mark.parametrize(
    ("rows", "types"),
    [
        (DEFAULT[0] + 100, {"list"}),
        # They meet a young collection in quiet runs, too: what else is left is not told by type.
        pytest.param(
            QUIET_OBJECTS + 100, set(), marks=pytest.mark.skipif(INCREMENTAL, reason="none runs")
        ),
    ],
)
def test_garbage_that_a_young_collection_found_alive_is_not_left_behind(
    rows: int, types: set[str]
) -> None:
    def task() -> None:
        thing = Thing()
        thing.rows = [[number] for number in range(rows)]  # type: ignore[attr-defined]
        thing.myself = thing  # type: ignore[attr-defined]
        keep(20, list)

    meter = make_meter()
    run(meter, returning(task), times=WARM)
    found = []
    for _ in range(9):
        profile_of(meter).row = ProfileRow()
        run(meter, returning(task))
        found.append(figures_of(profile_of(meter).row))
    assert mostly([each["blocks"] for each in found], 20)
    assert all(each["garbage_blocks"] >= rows for each in found)
    assert set(survivors_of(meter)) == types


@pytest.mark.parametrize("size", [1, 4, 19])
def test_tuples_that_wait_to_be_used_again_are_not_left_behind(size: int) -> None:
    """As those of a traceback: each failed run frees its own, after the worker has taken as many
    for the failure before it."""
    held: list[tuple[None, ...]] = []

    def tuples() -> list[tuple[None, ...]]:
        return [tuple([None] * size) for _ in range(1_500)]

    meter = make_meter()
    for number in range(40):
        if number % 2:
            held += tuples()  # whatever waits is in use now
        run(meter, returning(lambda: tuples().clear()))
        held.clear()
    profile = profile_of(meter)
    assert size in profile.tuples
    assert 1 <= meter.auditor.discarded["free_tuples"] <= MOST_LOOKS
    assert profile.row.sums(1)[Column.BLOCKS] < 500


def test_runs_fill_the_lists_of_tuples_that_a_full_collection_has_emptied() -> None:
    meter = make_meter()
    run(meter, returning(lambda: None), times=10)
    audits = profile_of(meter).audits
    gc.collect()
    run(meter, returning(lambda: None), times=RUNS_TO_REFILL)
    assert profile_of(meter).audits == audits
    run(meter, returning(lambda: None))
    assert profile_of(meter).audits == audits + 1


def test_a_type_that_has_a_full_collection_before_each_run_is_audited_all_the_same() -> None:
    meter = make_meter()
    for _ in range(40):
        run(meter, returning(lambda: None))
        gc.collect()
    assert profile_of(meter).audits >= 40 // (2 + RUNS_TO_REFILL)


def test_never_where_the_collector_is_debugged() -> None:
    meter = make_meter()
    gc.collect()  # what other tests left
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run(meter, returning(lambda: None))
    finally:
        gc.set_debug(0)
    assert profile_of(meter).audits == 0
    assert gc.garbage == []


def test_never_where_audits_are_off() -> None:
    meter = make_meter(audits=False)
    run(meter, returning(lambda: None))
    assert profile_of(meter).audits == 0


# --- it is put back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, SystemExit, SoftTimeLimitExceeded]
)
def test_the_collector_is_as_it_was_when_the_run_ends_by_an_exception(
    error: type[BaseException],
) -> None:
    quiet: list[bool] = []

    def trace(*_: Any) -> Any:
        quiet.append(gc.get_threshold() != DEFAULT)
        raise error

    meter = make_meter()
    run(meter, returning(lambda: gc.collect(1)))  # from now on its collector is to be quiet
    with pytest.raises(error):
        run(meter, trace)
    assert quiet == [True]
    assert gc.get_threshold() == DEFAULT
    assert meter.occupancy.idle
    assert totals_of(meter).runs_by_outcome == {"succeeded": 1, "aborted": 1}


def test_a_process_that_a_task_forks_has_the_applications_collector() -> None:
    meter = make_meter()
    seen: list[tuple[int, int, int]] = []

    def fork() -> None:
        meter.after_fork()  # as the hook does in the new process
        seen.append(gc.get_threshold())

    run(meter, returning(lambda: gc.collect(1)))
    run(meter, returning(fork))
    assert seen == [DEFAULT]
    assert meter.guard.errors == 0


def test_a_run_in_which_somebody_forks_is_left_out() -> None:
    meter = make_meter()
    run(meter, returning(meter.occupancy.disturb), times=10)
    assert profile_of(meter).audits == 0
    assert totals_of(meter).runs == 10
