"""The application's heap is never touched where it must not be, and is always put back."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery_memory_exporter.agent.audit.audit import FULL_COLLECTIONS_OWED, Auditor
from celery_memory_exporter.agent.stats.readings import Readings
from tests.agent.audit.harness import (
    Thing,
    answer,
    make_meter,
    profile_of,
    returning,
    run,
    totals_of,
)

pytestmark = pytest.mark.usefixtures("heap_as_it_was")


# --- where it must not --------------------------------------------------------------------------


def test_never_where_the_application_froze_its_heap() -> None:
    meter = make_meter()
    gc.freeze()
    frozen = gc.get_freeze_count()
    try:
        run(meter, returning(lambda: None))
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()
    assert profile_of(meter).audits == 0
    assert not meter.auditor.enabled


def test_never_where_the_collector_is_debugged() -> None:
    meter = make_meter()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run(meter, returning(lambda: None))
    finally:
        gc.set_debug(0)
    assert profile_of(meter).audits == 0
    assert gc.garbage == []


def test_never_where_it_is_off() -> None:
    meter = make_meter(audits=False)
    run(meter, returning(lambda: None))
    assert profile_of(meter).audits == 0


def test_an_application_that_unfreezes_the_heap_ends_audits() -> None:
    meter = make_meter()
    run(meter, returning(gc.unfreeze))
    assert not meter.auditor.enabled
    assert (profile_of(meter).audits, profile_of(meter).survivors) == (0, {})


# --- the heap is put back -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, SystemExit, SoftTimeLimitExceeded]
)
def test_the_heap_is_unfrozen_when_the_run_ends_by_an_exception(error: type[BaseException]) -> None:
    def trace(*_: Any) -> Any:
        assert gc.get_freeze_count() > 0, "this run is audited"
        raise error

    meter = make_meter()
    with pytest.raises(error):
        run(meter, trace)
    assert gc.get_freeze_count() == 0
    assert meter.occupancy.idle
    assert totals_of(meter).runs_by_outcome == {"aborted": 1}


# --- full collections ---------------------------------------------------------------------------


def test_full_collections_that_audits_held_up_are_made_up_for() -> None:
    auditor = Auditor(Readings(), enabled=True)
    first, second, third = gc.get_threshold()
    before = gc.get_stats()[-1]["collections"]

    def audit_one() -> int:
        auditor.begin()
        auditor.finish(answer())
        return gc.get_stats()[-1]["collections"] - before

    assert audit_one() == 2, "the audit's own"
    auditor.owed[0] = FULL_COLLECTIONS_OWED * second * max(1, third) + 1
    assert audit_one() == 5
    assert audit_one() == 7, "the debt is paid"
    gc.disable()
    try:
        auditor.owed[0] = FULL_COLLECTIONS_OWED * second * max(1, third) + 1
        assert audit_one() == 9, "an application without automatic collections gets none"
    finally:
        gc.enable()
    assert first


def test_collections_that_freezing_would_forget_are_owed() -> None:
    """``gc.freeze`` sets the counts to zero, so they are read before."""
    auditor = Auditor(Readings(), enabled=True)
    before = auditor.owed[0]
    gc.collect()
    kept: list[Any] = [[] for _ in range(3 * gc.get_threshold()[0])]
    young = gc.get_count()[1]
    auditor.begin()
    auditor.abandon()
    assert young >= 1, f"{len(kept)} lists are more than a young generation"
    assert auditor.owed[0] >= before + young


def test_a_process_that_a_task_forks_has_a_heap_that_is_collected() -> None:
    meter = make_meter()
    seen: list[int] = []

    def fork() -> None:
        frozen = gc.get_freeze_count()
        meter.after_fork()  # as the hook does in the new process
        seen.append(frozen)
        seen.append(gc.get_freeze_count())

    run(meter, returning(fork))
    assert seen[0] > 0
    assert seen[1] == 0
    assert meter.guard.errors == 0


def test_a_run_in_which_somebody_forks_is_left_out() -> None:
    meter = make_meter()
    run(meter, returning(meter.occupancy.disturb), times=10)
    assert profile_of(meter).audits == 0
    assert totals_of(meter).runs == 10


def test_garbage_from_before_is_freed_at_last() -> None:
    """Audits reset the counters that automatic full collections wait for."""
    meter = make_meter()
    meter.auditor.owed[0] = 1e9
    cycle = Thing()
    cycle.myself = cycle  # type: ignore[attr-defined]
    ghost = weakref.ref(cycle)
    gc.collect()
    del cycle
    run(meter, returning(lambda: None))
    assert ghost() is None
