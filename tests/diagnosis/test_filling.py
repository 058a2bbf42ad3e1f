"""Whether it goes on: how a container fills up, and what that makes of the verdict."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.evidence import Fill, Holder
from celery_memory_exporter.diagnosis.filling import (
    keeps_filling,
    newest_age,
    newest_rate,
    slowing,
    still,
    whole_rate,
)
from celery_memory_exporter.diagnosis.verdict import Cleared, Suspect
from tests.diagnosis.evidence import Shape, filled, nothing, verdict_on


def fill(*ages: tuple[float, float]) -> Fill:
    """Items gained and runs meanwhile, from the end of start-up on."""
    return Fill("shop.held", [gained for gained, _ in ages], [runs for _, runs in ages])


def some(share: float, seed: int) -> Shape:
    """One in so many runs, by chance, and the same ones each time."""
    chance = random.Random(seed)
    drawn = [chance.random() < share for _ in range(1_000)]
    return lambda number: 3000.0 * drawn[number]


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("late", "last", "goes_on"),
    [(60.0, 70.0, True), (59.0, 70.0, False), (60.0, 69.0, False), (120.0, 84.0, True)],
)
def test_the_later_half_and_the_last_quarter_have_to_leave_as_much(
    late: float, last: float, goes_on: bool
) -> None:
    assert still([(100.0, 0.0), (late, 0.0), (last, 0.0)]) is goes_on
    assert still([(100.0, 0.0), (late, 1.0), (last, 1.0)]), "chance may have taken one"


def test_rates_are_items_a_run() -> None:
    gains = fill((30.0, 30.0), (10.0, 20.0), (4.0, 4.0))
    assert whole_rate(gains) == 44 / 54
    assert (newest_age(gains), newest_rate(gains)) == (1, 0.5), "four runs tell nothing"


def test_without_runs_there_is_no_newest_age() -> None:
    assert (newest_age(fill()), newest_rate(fill())) == (None, -math.inf)
    assert not keeps_filling(fill())


def test_gains_that_come_early_are_slowing_and_late_ones_are_not() -> None:
    runs = [15.0, 15.0, 15.0, 15.0]
    early, even, late = (
        fill(*zip(gains, runs, strict=True))
        for gains in ([15.0, 9.0, 4.0, 1.0], [5.0] * 4, [1.0, 4.0, 9.0, 15.0])
    )
    assert slowing(early) > 2
    assert slowing(even) == pytest.approx(0, abs=1e-9)
    assert slowing(late) == pytest.approx(-slowing(early))


@given(st.floats(0.05, 10), st.lists(st.floats(5, 1e4), min_size=4, max_size=16))
def test_what_gains_at_one_rate_keeps_filling(rate: float, runs: list[float]) -> None:
    assert keeps_filling(fill(*[(rate * each, each) for each in runs]))


def test_what_gained_nothing_of_late_does_not() -> None:
    assert not keeps_filling(fill((15.0, 15.0), (15.0, 15.0), (0.0, 15.0)))


@pytest.mark.parametrize(
    ("gains", "fills"), [([15.0, 10.0, 7.0, 5.0], False), ([3.0, 2.0, 2.0, 2.0], True)]
)
def test_that_gains_get_fewer_may_be_chance_where_they_are_few(
    gains: list[float], fills: bool
) -> None:
    assert keeps_filling(fill(*[(gained, 15.0) for gained in gains])) is fills


# --- verdicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [60, 90, 100])
def test_a_cache_that_has_filled_is_no_leak_however_short_a_time_ago(full: int) -> None:
    def shape(number: int) -> float:
        return 3000.0 if number < full else 0.0

    for runs in (*range(105, 140), 200, 400):
        assert isinstance(verdict_on(filled(shape, runs, lambda number: number < full)), Cleared), (
            runs
        )


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_in_some_runs_is_told_by_what_its_container_gains_in_all(seed: int) -> None:
    shape = some(0.2, seed)
    assert isinstance(verdict_on(filled(shape, 200, lambda number: shape(number) > 0)), Suspect)


@pytest.mark.parametrize("seed", range(5))
def test_a_cache_that_is_filled_by_chance_gains_ever_less(seed: int) -> None:
    chance, seen = random.Random(seed), set[int]()
    new = [len(seen) < len(seen := seen | {chance.randrange(40)}) for _ in range(200)]
    assert isinstance(
        verdict_on(filled(lambda number: 3000.0 * new[number], 200, new.__getitem__)), Cleared
    )


def test_a_container_that_slows_down_a_little_in_a_long_life_still_leaks() -> None:
    def gains(number: int) -> float:
        return 1.0 if number < 10_000 else 0.8

    assert isinstance(verdict_on(filled(lambda _: 3000.0, 20_000, gains)), Suspect)


@pytest.mark.parametrize(("full", "accused"), [(1_000, True), (80, False), (0, False)])
def test_a_buffer_that_keeps_what_runs_write_to_it_leaks(full: int, accused: bool) -> None:
    """It grows by an eighth of itself now and then, which audits miss."""
    evidence = filled(nothing, 200, lambda number: 1000.0 if number < full else 0.0)
    buffer = [Holder("shop.held", "bytearray", 400_000, 10_000.0)]
    assert isinstance(verdict_on(dataclasses.replace(evidence, holders=buffer)), Suspect) is accused
