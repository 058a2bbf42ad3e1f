"""The rules that a verdict rests on, one by one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from celery_memory_exporter.common.evidence import WARM_RUNS, Estimate, Fill, Holder
from celery_memory_exporter.common.left_behind import COUNTS
from celery_memory_exporter.diagnosis.going_on import counts_go_on, goes_on, steps_go_on
from celery_memory_exporter.diagnosis.profile import window
from celery_memory_exporter.diagnosis.rules import (
    CLASS_OF_COUNT,
    Case,
    contradicted,
    fills_of,
    gains_surely,
    leaks_in_steps,
    leaks_steadily,
    settled,
    stands,
    steady_window,
    survivors_per_run,
)
from celery_memory_exporter.diagnosis.verdict import Suspect
from tests import samples
from tests.diagnosis.evidence import (
    MIB,
    SURE,
    Process,
    case_of,
    evidence_of,
    filled,
    leak,
    nothing,
    process,
    steady,
    told_by,
    verdict_on,
)


def alone(size: float, runs: int = 200) -> Case:
    """Of a pool whose runs overlap: runs that happened to be alone, each read before and after."""
    seen = Process()
    for _ in range(runs):
        seen.read(size, only_large=False)
    evidence = dataclasses.replace(told_by(seen, overlapping=SURE), collections=3)
    return case_of(evidence, pool="gevent")


def test_each_figure_of_the_kernels_has_a_class() -> None:
    assert set(CLASS_OF_COUNT) == set(COUNTS)


# --- start-up and age ----------------------------------------------------------------------------


def test_start_up_is_shorter_where_recycling_lets_processes_live_for_few_runs() -> None:
    old, young, few = (
        evidence_of(leak, runs, processes) for runs, processes in ((200, 2), (25, 16), (25, 2))
    )
    assert [steady_window(each).ages.start for each in (old, young, few)] == [5, 2, 5]


@pytest.mark.parametrize(
    ("runs", "processes", "enough"),
    [(109, 1, False), (110, 1, True), (25, 2, False), (25, 5, True), (20, 5, False)],
)
def test_a_process_has_to_see_runs_enough_or_several_generations_together(
    runs: int, processes: int, enough: bool
) -> None:
    assert settled(case_of(evidence_of(leak, runs, processes, audit_every=1))) is enough


def test_where_only_some_runs_leave_something_chance_needs_longer() -> None:
    def some(number: int) -> float:
        return 3000.0 if number % 3 == 0 else 0.0

    assert not settled(case_of(evidence_of(some, 119, 1, audit_every=1)))
    assert settled(case_of(evidence_of(some, 120, 1, audit_every=1)))


def test_one_measured_run_of_an_old_process_is_needed() -> None:
    seen = Process()
    for number in range(120):
        if number < 90:
            seen.audit(20.0)
        else:
            seen.run()
    assert not settled(case_of(told_by(seen)))
    seen.audit(20.0)
    assert settled(case_of(told_by(seen)))


@pytest.mark.parametrize(
    ("runs", "intervals", "enough"), [(80, 12, True), (79, 12, False), (80, 11, False)]
)
def test_least_squares_need_runs_and_intervals(runs: int, intervals: int, enough: bool) -> None:
    shared = dataclasses.replace(SURE, runs=runs, intervals=intervals)
    case = case_of(dataclasses.replace(evidence_of(nothing), overlapping=shared), pool="threads")
    assert settled(case) is enough


# --- is something left behind, and does it go on -------------------------------------------------


@pytest.mark.parametrize("runs", [200, 1_000])
def test_a_steady_leak_goes_on_and_a_cache_that_has_filled_does_not(runs: int) -> None:
    def cache(number: int) -> float:
        return 5000.0 if number < 90 else 0.0

    leaking, cached = (steady(process(shape, runs, audit_every=1)) for shape in (leak, cache))
    assert leaks_steadily(leaking)
    assert leaks_steadily(cached)
    assert (goes_on(leaking), goes_on(cached)) == (True, False)


@pytest.mark.parametrize(("late", "on"), [(1000.0, False), (1900.0, True)])
def test_chance_is_granted_some_of_what_only_every_second_run_leaves(late: float, on: bool) -> None:
    """In the later half; by mean it is less than before, but not surely so."""
    seen = Process()
    for number in range(330):
        seen.audit(native=1000.0 if number < 180 else late * (number % 2))
    assert goes_on(steady(seen)) is on


def test_of_a_later_half_without_audits_nothing_is_known() -> None:
    seen = Process()
    for number in range(400):
        if number < 150:
            seen.audit(20.0)
        else:
            seen.run()
    assert not goes_on(steady(seen))


def test_a_table_that_all_objects_are_in_grows_in_steps_ever_rarer() -> None:
    """As a pickler's memo: sixteen bytes for each object, and twice as many when it is full."""
    seen = Process()
    for number in range(200):
        step = 20 * number < (full := 2 ** (20 * number + 20).bit_length() // 2) <= 20 * number + 20
        seen.audit(20.0, 16.0 * full if step else 0.0)
    assert goes_on(steady(seen))
    assert isinstance(verdict_on(told_by(seen, seen)), Suspect)


@pytest.mark.parametrize(
    ("steps", "leaks", "on"),
    [
        (range(7, 400, 50), True, True),
        (range(40, 160, 20), True, False),
        ((60,), False, False),
    ],
)
def test_much_in_few_runs(steps: range | tuple[int, ...], leaks: bool, on: bool) -> None:
    whole = steady(process(lambda number: 1.0 * MIB if number in steps else 0.0, 400))
    assert (leaks_in_steps(whole), steps_go_on(whole)) == (leaks, on)


def opened(*numbers: int) -> Process:
    """Ten descriptors each, in the runs of these numbers."""
    seen = Process()
    for number in range(200):
        seen.audit(fds=10.0 if number in numbers else 0.0)
    return seen


@pytest.mark.parametrize("first", [35, 95, 150])
def test_descriptors_opened_once_are_no_rate_and_now_and_then_are_one(first: int) -> None:
    assert not counts_go_on(steady(opened(first)), "fds")
    assert counts_go_on(steady(opened(*range(first % 10, 200, 10))), "fds")


@pytest.mark.parametrize("first", [20, 95])
def test_descriptors_opened_once_are_no_leak(first: int) -> None:
    assert not isinstance(verdict_on(told_by(opened(first))), Suspect)


# --- least squares -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "above"),
    [
        ({}, True),
        ({"error": None}, False),
        ({"per_run": 1_990.0, "late_per_run": 1_990.0}, False),
        ({"per_run": 2_000.0, "late_per_run": 2_000.0}, True),
        ({"runs": 79}, False),
        ({"intervals": 11}, False),
        ({"late_per_run": 8_990.0}, False),
        ({"late_per_run": 9_010.0}, True),
        ({"late_per_run": 0.0, "late_error": None}, True),
    ],
)
def test_an_estimate_is_four_standard_errors_above_zero_and_still_is_in_the_later_half(
    changes: dict[str, Any], above: bool
) -> None:
    assert stands(dataclasses.replace(SURE, **changes), 24.0) is above


def test_an_estimate_is_above_the_least_amount() -> None:
    assert stands(SURE, 18_000.0)
    assert not stands(SURE, 18_001.0)
    assert not stands(None, 0.0)


@pytest.mark.parametrize(
    ("size", "against"), [(18_000.0, False), (10_000.0, False), (1_000.0, True), (0.0, True)]
)
def test_runs_that_happened_to_be_alone_contradict_least_squares(
    size: float, against: bool
) -> None:
    assert contradicted(alone(size)) is against
    assert isinstance(verdict_on(alone(size).evidence, pool="gevent"), Suspect) is not against


def test_a_few_runs_alone_contradict_nothing() -> None:
    assert not contradicted(alone(0.0, runs=WARM_RUNS + 29))
    assert contradicted(alone(0.0, runs=WARM_RUNS + 30))


def test_the_closer_one_tells_what_a_run_leaves_behind() -> None:
    assert alone(9_000.0).bytes_per_run == pytest.approx(9_000.0)
    assert alone(9_000.0, runs=WARM_RUNS + 29).bytes_per_run == 18_000.0
    blurred = dataclasses.replace(alone(9_000.0).evidence, overlapping=None)
    assert case_of(blurred, pool="gevent").bytes_per_run == pytest.approx(9_000.0)


def test_a_single_run_alone_does_not_outweigh_least_squares() -> None:
    seen = Process()
    for number in range(60):
        if number == 50:
            seen.read(450_000.0, only_large=False)
        else:
            seen.run()
    evidence = dataclasses.replace(told_by(seen, overlapping=SURE), collections=3)
    verdict = verdict_on(evidence, pool="gevent")
    assert isinstance(verdict, Suspect)
    assert verdict.retained_bytes_per_run == 18_000.0


def test_how_certain_a_case_is_by_what_speaks_most_for_it() -> None:
    assert alone(0.0, runs=5).certainty == 1800 / 50
    share = Estimate(1.0, 0.02, 1.0, 0.02, 400, 40)
    held = [Holder("shop.held", "dict", 99, 20.0, share=share)]
    assert case_of(dataclasses.replace(evidence_of(nothing), holders=held)).certainty == 50
    assert case_of(evidence_of(nothing)).certainty == 3
    assert case_of(evidence_of(leak)).certainty == 100


# --- containers and survivors --------------------------------------------------------------------


def test_fills_of_unbounded_containers_that_take_most_count() -> None:
    evidence = filled(leak, 200, lambda _: 1.0)
    (fill,) = fills_of(case_of(evidence))
    held = evidence.holders[0]
    for other in (
        dataclasses.replace(held, limit=500),
        dataclasses.replace(held, path="shop.other"),
        dataclasses.replace(held, growth=1.0),
    ):
        more = Holder("shop.more", "list", 9, 20.0)
        assert fills_of(case_of(dataclasses.replace(evidence, holders=[other, more]))) == []
    for gains, runs in (([9.0], [59.0]), ([0.0], [100.0]), ([151.0], [100.0])):
        unclear = [Fill(fill.path, gains, runs)]
        assert fills_of(case_of(dataclasses.replace(evidence, fills=unclear))) == []


def test_items_of_a_buffer_are_bytes_so_it_may_gain_many_a_run() -> None:
    evidence = filled(leak, 200, lambda _: 1000.0)
    assert fills_of(case_of(evidence)) == []
    buffer = [dataclasses.replace(evidence.holders[0], kind="bytearray")]
    assert fills_of(case_of(dataclasses.replace(evidence, holders=buffer))) == evidence.fills


@pytest.mark.parametrize(
    ("gained", "size", "sure"),
    [(9.0, 1000.0, True), (8.0, 1000.0, False), (9.0, 0.0, False), (60_000.0, 0.0, True)],
)
def test_a_container_gains_surely_with_items_enough_and_bytes(
    gained: float, size: float, sure: bool
) -> None:
    case = case_of(evidence_of(lambda _: size))
    assert gains_surely(case, Fill("shop.held", [gained], [100.0])) is sure


def test_survivors_are_of_audited_runs_past_the_first_few_deep_ones_included() -> None:
    evidence = samples.evidence(survivors={"list": 248})
    audits = window(evidence.profile, 5).sums.audited + evidence.deep_audits
    assert survivors_per_run(evidence) == {"list": 248 / audits}
    assert survivors_per_run(dataclasses.replace(evidence, survivors={})) == {}
