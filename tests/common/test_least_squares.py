"""The solver by itself: observations in, shares and errors out."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.least_squares import (
    RATIOS,
    Observation,
    cancels,
    inverted,
    likeliest_ratio,
    pivots_of,
    products,
    shares_of,
    whiten,
    whitening,
    widening,
    without_outliers,
)


def observations(
    noise: float, number: int = 40, share: float = 20.0, seed: int = 1
) -> list[Observation]:
    """Intervals in which runs of one type leave ``share`` each, and the worker itself 7."""
    chance = random.Random(seed)
    counts = [float(chance.randrange(5, 25)) for _ in range(number)]
    return [[runs, 1.0, share * runs + 7 + chance.gauss(0, noise)] for runs in counts]


def test_shares_end_with_the_background() -> None:
    whole, late = shares_of(observations(noise=0.0))
    assert whole.shares == pytest.approx([20, 7])
    assert late.shares == pytest.approx([20, 7])
    assert max(map(abs, whole.residuals)) < 1e-6


def test_with_no_more_observations_than_columns_nothing_is_told() -> None:
    whole, _ = shares_of(observations(noise=0.0, number=2))
    assert whole.errors == [math.inf, math.inf]
    assert whole.shares == [0.0, 0.0]


def test_an_error_holds_the_true_share_in_nearly_all_lives() -> None:
    misses = 0
    for seed in range(200):
        whole, _ = shares_of(observations(noise=100.0, number=12, seed=seed))
        misses += abs(whole.shares[0] - 20) > 3 * whole.errors[0]
    assert misses <= 4


def test_a_rise_that_is_taken_back_is_merged_away() -> None:
    rows = observations(noise=0.0)
    rows[10][-1] += 1e6
    rows[12][-1] -= 1e6
    residuals = [0.1 * (-1) ** at for at in range(40)]
    residuals[10], residuals[12] = 1e6, -1e6
    kept, drifts = without_outliers(rows, residuals)
    assert len(kept) == 38
    assert kept[10] == [sum(column) for column in zip(*rows[10:13], strict=True)]
    assert math.inf not in drifts


def test_a_step_that_stays_counts_for_nothing() -> None:
    residuals = [0.1 * (-1) ** at for at in range(40)]
    residuals[10] = 1e6
    kept, drifts = without_outliers(observations(noise=0.0), residuals)
    assert len(kept) == 40
    assert [at for at, drift in enumerate(drifts) if drift == math.inf] == [10]


def test_most_of_a_rise_has_to_be_taken_back() -> None:
    assert cancels(100.0, -60.0)
    assert cancels(-100.0, 60.0)
    assert not cancels(100.0, -40.0)
    assert not cancels(100.0, 100.0)


def test_noise_of_readings_is_told_from_noise_of_intervals() -> None:
    chance = random.Random(2)
    readings = [chance.gauss(0, 100) for _ in range(201)]
    drifts = [1.0] * 200
    jitter = [after - before for before, after in itertools.pairwise(readings)]
    assert likeliest_ratio(jitter, drifts) >= 100
    assert likeliest_ratio([chance.gauss(0, 100) for _ in range(200)], drifts) <= 0.3


@given(st.sampled_from(RATIOS), st.integers(2, 30))
def test_whitened_noise_is_independent_and_equal(ratio: float, number: int) -> None:
    """The covariance of the noise becomes the identity."""
    drifts = [1.0 + at % 3 for at in range(number)]
    factors = whitening(pivots_of(drifts, ratio), ratio)
    covariance = [
        [
            drifts[at] + 2 * ratio if at == to else -ratio * (abs(at - to) == 1)
            for to in range(number)
        ]
        for at in range(number)
    ]
    half = [whiten(column, factors) for column in covariance]
    whole = [whiten(column, factors) for column in zip(*half, strict=True)]
    for at, row in enumerate(whole):
        assert row == pytest.approx([float(at == to) for to in range(number)], abs=1e-6)


@given(st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=6, max_size=12))
def test_an_inverse_times_its_matrix_is_the_identity(rows: list[list[float]]) -> None:
    columns = [[*column] for column in zip(*rows, strict=True)]
    for at, column in enumerate(columns):  # so that no column is like another
        column += [3.0 * (at == other) for other in range(3)]
    matrix = products(columns)
    inverse = inverted([[*row] for row in matrix])
    for at in range(3):
        product = [
            sum(inverse[at][middle] * matrix[middle][to] for middle in range(3)) for to in range(3)
        ]
        assert product == pytest.approx([float(at == to) for to in range(3)], abs=1e-6)


def test_errors_grow_where_intervals_are_few() -> None:
    factors = [widening(spare) for spare in (1, 3, 10, 100, 10_000)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(1, abs=1e-3)
