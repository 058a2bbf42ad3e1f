"""Shares of growth, found from the totals of a life's intervals."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.evidence import Estimate
from celery_memory_exporter.common.intervals import MAX_NAMES, Intervals
from celery_memory_exporter.common.names import OTHER

TYPES = ("a", "b", "c", "d", "e")
RATES = (10, 8, 12, 5, 3)


def live(
    shares: dict[str, float], seed: int, number: int = 60, noise: float = 0.0, spikes: float = 0.0
) -> Intervals:
    """A life: varying runs of each type, and memory in flight at each reading, now and then
    ``spikes`` of it."""
    chance = random.Random(seed)
    intervals = Intervals()
    held = 0.0
    for _ in range(number):
        runs = {
            name: max(0, round(chance.gauss(rate, math.sqrt(rate))))
            for name, rate in zip(TYPES, RATES, strict=True)
        }
        before, held = (
            held,
            abs(chance.gauss(0, noise)) + (spikes if chance.random() < 0.05 else 0.0),
        )
        intervals.add(
            runs, sum(shares.get(name, 0.0) * count for name, count in runs.items()) + held - before
        )
    return intervals


def accused(estimate: Estimate) -> bool:
    return estimate.error is not None and abs(estimate.per_run) > 3 * estimate.error


def error_of_a(intervals: Intervals) -> float:
    error = intervals.estimates()["a"].error
    assert error is not None
    return error


# --- what is found ------------------------------------------------------------------------------


@given(st.lists(st.integers(-1000, 100_000), min_size=5, max_size=5), st.integers(0, 2**32))
def test_exact_data_give_the_true_shares(shares: list[int], seed: int) -> None:
    truth = dict(zip(TYPES, map(float, shares), strict=True))
    for name, estimate in live(truth, seed).estimates().items():
        assert estimate.per_run == pytest.approx(truth[name], abs=1e-3)
        assert estimate.late_per_run == pytest.approx(truth[name], abs=1e-3)
        assert estimate.error is not None
        assert estimate.error < 1e-3


def test_a_leak_is_named_and_its_neighbours_are_not() -> None:
    """Twenty blocks a run beside neighbours that have up to 10 MB in flight when a reading is
    taken."""
    right = 0
    for seed in range(100):
        estimates = live({"a": 20.0}, seed, noise=30.0, spikes=1e7).estimates()
        leak = estimates.pop("a")
        right += (
            accused(leak)
            and abs(leak.per_run - 20) < 2
            and not any(map(accused, estimates.values()))
        )
    assert right >= 95


def test_nobody_is_named_where_nothing_leaks() -> None:
    lives = [live({}, seed, noise=1000.0, spikes=1e7).estimates() for seed in range(100)]
    assert sum(any(map(accused, estimates.values())) for estimates in lives) <= 5


def test_a_single_step_is_nobodys_rate() -> None:
    intervals = live({"a": 20.0}, seed=1, noise=10.0)
    intervals.add(dict.fromkeys(TYPES, 9), 5e6)
    estimates = intervals.estimates()
    assert estimates["a"].per_run == pytest.approx(20, rel=0.1)
    assert [name for name in TYPES if accused(estimates[name])] == ["a"]


def test_steps_that_recur_are_a_leak() -> None:
    chance = random.Random(3)
    intervals = Intervals()
    for _ in range(120):
        rare, often = chance.choice([0, 0, 0, 0, 1]), chance.randrange(10, 30)
        intervals.add({"rare": rare, "often": often}, 1e6 * rare + chance.gauss(0, 100))
    estimates = intervals.estimates()
    assert estimates["rare"].per_run == pytest.approx(1e6, rel=0.01)
    assert not accused(estimates["often"])


def test_memory_held_over_some_readings_is_no_growth() -> None:
    chance = random.Random(4)
    intervals = Intervals()
    for number in range(60):
        runs = {"a": chance.randrange(5, 15), "b": chance.randrange(5, 15)}
        held = {20: 3e6, 23: -3e6}.get(number, 0.0)
        intervals.add(runs, 20 * runs["a"] + held + chance.gauss(0, 10))
    assert intervals.estimates()["a"].per_run == pytest.approx(20, rel=0.1)


def test_a_cache_that_has_filled_grows_no_more() -> None:
    chance = random.Random(5)
    intervals = Intervals()
    for number in range(100):
        runs = {"a": chance.randrange(5, 15), "b": chance.randrange(30)}
        intervals.add(runs, 20 * runs["a"] * (number < 40) + chance.gauss(0, 5))
    estimate = intervals.estimates()["a"]
    assert estimate.late_error is not None
    assert abs(estimate.late_per_run) < 3 * estimate.late_error
    assert abs(estimate.late_per_run) < 1


def test_growth_of_the_worker_itself_is_no_task_types() -> None:
    chance = random.Random(6)
    intervals = Intervals()
    for _ in range(60):
        intervals.add({"a": chance.randrange(50, 60)}, 5000 + chance.gauss(0, 10))
    assert not accused(intervals.estimates()["a"])


# --- what cannot be found -----------------------------------------------------------------------


@given(st.integers(1, 7), st.integers(0, 2**32), st.floats(0, 1000), st.integers(10, 60))
def test_types_that_always_run_together_are_never_told_apart(
    times: int, seed: int, noise: float, number: int
) -> None:
    chance = random.Random(seed)
    intervals = Intervals()
    for _ in range(number):
        runs, alone = chance.randrange(20), chance.randrange(20)
        intervals.add(
            {"a": runs, "b": times * runs, "alone": alone},
            20.0 * runs + 5 * alone + chance.gauss(0, noise),
        )
    estimates = intervals.estimates()
    for name in {"a", "b"} & estimates.keys():
        assert (estimates[name].error, estimates[name].late_error) == (None, None)
        assert estimates[name].per_run == 0.0


def test_a_type_beside_an_inseparable_pair_is_still_found() -> None:
    chance = random.Random(7)
    intervals = Intervals()
    for _ in range(60):
        runs, alone = chance.randrange(20), chance.randrange(20)
        intervals.add({"a": runs, "b": runs, "alone": alone}, 20.0 * alone + chance.gauss(0, 1))
    assert intervals.estimates()["alone"].per_run == pytest.approx(20, rel=0.05)


def test_equal_counts_cannot_be_told_from_the_background() -> None:
    intervals = Intervals()
    for _ in range(30):
        intervals.add({"a": 5}, 100.0)
    assert intervals.estimates()["a"].error is None


def test_idle_intervals_tell_the_background() -> None:
    intervals = Intervals()
    for _ in range(10):
        for runs in (5, 0):
            intervals.add({"a": runs}, 20.0 * runs + 7)
    assert intervals.estimates()["a"].per_run == pytest.approx(20)


def test_there_are_two_intervals_more_than_columns_or_nothing() -> None:
    chance = random.Random(8)
    intervals = Intervals()
    for _ in range(3):
        intervals.add({"a": chance.randrange(1, 50), "b": chance.randrange(1, 50)}, 1.0)
    assert intervals.estimates() == {}
    intervals.add({"a": 90, "b": 3}, 1.0)
    assert intervals.estimates().keys() == {"a", "b"}


def test_a_type_that_never_ran_has_no_estimate() -> None:
    intervals = Intervals()
    for number in range(10):
        intervals.add({"a": number, "never": 0}, 3.0 * number)
    assert intervals.estimates().keys() == {"a"}


def test_a_type_that_did_not_run_lately_has_no_late_share() -> None:
    intervals = Intervals()
    for number in range(40):
        intervals.add(
            {"a": number * 7 % 5 if number < 15 else 0, "b": number * 3 % 7}, float(number % 5)
        )
    estimate = intervals.estimates()["a"]
    assert estimate.error is not None
    assert (estimate.late_per_run, estimate.late_error) == (0.0, None)


def test_nothing_is_known_before_the_first_interval() -> None:
    assert Intervals().estimates() == {}


@given(st.integers(0, 1000))
def test_noise_widens_errors(seed: int) -> None:
    errors = [error_of_a(live({"a": 20.0}, seed, noise=noise)) for noise in (0.0, 10.0, 1000.0)]
    assert errors == sorted(errors)


# --- what is kept -------------------------------------------------------------------------------

RUNS = st.dictionaries(st.sampled_from(TYPES), st.integers(0, 50))


@given(st.lists(st.tuples(RUNS, st.integers(-(2**40), 2**40)), max_size=80), st.integers(2, 9))
def test_merging_keeps_the_totals_and_the_bound(
    life: list[tuple[dict[str, int], int]], most: int
) -> None:
    intervals = Intervals(max_intervals=most)
    for runs, growth in life:
        intervals.add(runs, growth)
        assert len(intervals.kept) <= most
    kept: Counter[str] = Counter()
    for one in intervals.kept:
        kept.update(one.runs)
    assert kept == +sum((Counter(runs) for runs, _ in life), Counter())
    assert sum(one.growth for one in intervals.kept) == sum(growth for _, growth in life)
    assert sum(one.width for one in intervals.kept) == len(life)


def test_a_long_life_is_known_better_than_a_short_one() -> None:
    short, long = (live({"a": 20.0}, 1, number=number, noise=300.0) for number in (100, 3000))
    assert error_of_a(long) < error_of_a(short) / 5
    estimate = long.estimates()["a"]
    assert estimate.runs > 25 * short.estimates()["a"].runs
    assert estimate.per_run == pytest.approx(20, rel=0.1)
    assert estimate.late_per_run == pytest.approx(20, rel=0.1)


def test_a_long_idle_time_costs_one_interval() -> None:
    intervals = live({"a": 20.0}, 1, number=50)
    for _ in range(10_000):
        intervals.add({}, 0.0)
    assert len(intervals.kept) == 51


def test_the_least_frequent_types_are_one_column() -> None:
    chance = random.Random(9)
    intervals = Intervals(max_columns=3)
    for _ in range(40):
        runs = {f"t{number}": chance.randrange(10 * (6 - number)) for number in range(6)}
        intervals.add(runs, 20.0 * runs["t0"])
    estimates = intervals.estimates()
    assert set(estimates) == {"t0", "t1", OTHER}
    assert estimates["t0"].per_run == pytest.approx(20)
    assert estimates[OTHER].runs == sum(
        one.runs[f"t{number}"] for one in intervals.kept for number in range(2, 6)
    )


def test_endless_names_are_bounded() -> None:
    intervals = Intervals()
    for number in range(MAX_NAMES + 50):
        intervals.add({f"t{number}": 1}, 1.0)
    assert len({name for one in intervals.kept for name in one.runs}) <= MAX_NAMES + 1
    assert sum(one.runs[OTHER] for one in intervals.kept) == 50
