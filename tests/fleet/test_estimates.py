"""Resident memory by task type, out of readings of whole processes."""

from __future__ import annotations

import random

import pytest

from celery_memory_exporter.fleet.estimates import LEAST_INTERVALS, ResidentShares
from tests import samples


def readings(
    shares: ResidentShares, runs: list[dict[str, int]], per_run: dict[str, int], noise: int = 0
) -> None:
    chance = random.Random(7)
    size = 50 * samples.MIB
    shares.read(samples.table(rss=size), {})
    for each in runs:
        size += sum(count * per_run.get(name, 0) for name, count in each.items())
        shares.read(samples.table(rss=size + chance.randrange(-noise, noise + 1)), each)


def mixed(count: int) -> list[dict[str, int]]:
    chance = random.Random(3)
    return [
        {name: chance.randrange(20) for name in ("leaks", "innocent", "another")}
        for _ in range(count)
    ]


def test_the_task_type_that_grows_gets_the_growth_and_the_others_do_not() -> None:
    shares = ResidentShares()
    readings(shares, mixed(80), {"leaks": 100_000}, noise=50_000)
    told = shares.estimates
    assert told["leaks"].per_run == pytest.approx(100_000, abs=3 * told["leaks"].error)
    assert told["leaks"].per_run > 10 * told["leaks"].error
    for name in ("innocent", "another"):
        assert abs(told[name].per_run) < 3 * told[name].error


def test_few_readings_tell_nothing() -> None:
    shares = ResidentShares()
    readings(shares, mixed(LEAST_INTERVALS - 1), {"leaks": 100_000})
    assert shares.estimates == {}


def test_task_types_that_always_run_together_cannot_be_told_apart() -> None:
    shares = ResidentShares()
    readings(
        shares, [{"one": number % 5, "two": number % 5} for number in range(60)], {"one": 100_000}
    )
    assert shares.estimates == {}


def test_a_child_that_came_or_went_is_no_growth() -> None:
    shares = ResidentShares()
    for number in range(40):
        shares.read(samples.table(children=(1_000 + number,)), {"t": number % 3})
    assert shares.estimates["t"].per_run == 0
