"""What it takes to say of a task type that it does not leak; and the law that taking evidence away
turns no answer into its opposite."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable, Collection
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celery_memory_exporter.common.evidence import Estimate, Evidence, Holder
from celery_memory_exporter.diagnosis.innocence import LEAST_AUDITS, MOST_LATE, audits_missing
from celery_memory_exporter.diagnosis.verdict import Cleared, Suspect
from tests.diagnosis.evidence import (
    Process,
    Shape,
    case_of,
    evidence_of,
    fill_of,
    leak,
    nothing,
    process,
    told_by,
    verdict_on,
)

#: Examples of the law: 100,000 take some minutes.
LAW_EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "500"))
AUDITED, READ, PLAIN = range(3)


def audited_in(runs: Collection[int], shape: Shape, of: int = 400) -> Process:
    """A process with so many runs, of which these are audited."""
    seen = Process()
    for number in range(of):
        seen.audit(shape(number) / 90) if number in runs else seen.run()
    return seen


# --- how many audits it takes -------------------------------------------------------------------


def test_where_nothing_was_ever_seen_it_takes_audits_enough() -> None:
    few, enough = (
        told_by(audited_in(range(400 - int(count), 400), nothing))
        for count in (LEAST_AUDITS - 1, LEAST_AUDITS)
    )
    verdict = verdict_on(few)
    assert isinstance(verdict, Cleared)
    assert not verdict.settled
    assert verdict.reason == "its later runs have 29 of 30 audits yet"
    cleared = verdict_on(enough)
    assert isinstance(cleared, Cleared)
    assert cleared.growth_class == "steady"


@pytest.mark.parametrize(("every", "needed"), [(5, 41), (50, MOST_LATE)])
def test_what_came_more_seldom_takes_more_audits_without_it(every: int, needed: int) -> None:
    def shape(number: int) -> float:
        return 5000.0 if number < 150 and number % every == 0 else 0.0

    runs = [*range(150), *range(396, 400), *range(296, 298)]
    missing = audits_missing(case_of(told_by(audited_in(runs, shape))))
    assert missing is not None
    assert missing.needed == pytest.approx(needed, abs=1)


def test_a_leak_of_which_too_little_was_seen_is_never_cleared() -> None:
    for audits in range(40):
        verdict = verdict_on(told_by(audited_in(range(400 - audits, 400), leak)))
        assert isinstance(verdict, Suspect) or not verdict.settled


def test_what_comes_and_goes_is_not_known() -> None:
    chance = random.Random(7)
    verdict = verdict_on(told_by(process(lambda _: chance.gauss(0, 3000), 300)))
    assert isinstance(verdict, Cleared)
    assert verdict.reason.startswith("some later runs left something behind")


@pytest.mark.parametrize(("error", "known"), [(100.0, True), (5_000.0, False), (None, False)])
def test_where_runs_overlap_nothing_is_left_behind_only_within_a_small_error(
    error: float | None, known: bool
) -> None:
    shared = Estimate(10.0, error, 10.0, error, 400, 40)
    evidence = dataclasses.replace(evidence_of(nothing), overlapping=shared, collections=5)
    verdict = verdict_on(evidence, pool="threads")
    assert isinstance(verdict, Cleared)
    assert verdict.settled is known


@pytest.mark.parametrize("size", [0.0, 3_000.0, 30_000.0])
def test_where_runs_overlap_nothing_is_known_without_least_squares(size: float) -> None:
    """Single readings of runs that happened to be alone have Celery's own garbage in them."""
    alone = Process()
    for _ in range(300):
        alone.read(size, only_large=False)
    verdict = verdict_on(told_by(alone), pool="gevent")
    assert isinstance(verdict, Cleared)
    assert not verdict.settled


# --- the law ------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What the runs of a task type leave behind, by their number and by chance, and what a
    container that holds it gains."""

    leaks: bool
    size: Callable[[int, random.Random], float]
    gains: Callable[[int], float] | None = None
    limit: int | None = None


def kinds(scale: float, count: int) -> dict[str, Kind]:
    """``scale`` in bytes, ``count`` of runs: how often, how many, until when."""
    some = 2 + count % 2
    return {
        "steady": Kind(True, lambda n, _: scale),
        "noisy": Kind(True, lambda n, chance: chance.gauss(scale, scale)),
        "by chance": Kind(True, lambda n, chance: scale * (chance.randrange(some) == 0)),
        "held": Kind(True, lambda n, _: scale, lambda n: 1.0),
        "some held": Kind(
            True, lambda n, _: scale * (n % some == 0), lambda n: float(n % some == 0)
        ),
        "nothing": Kind(False, lambda n, _: 0.0),
        "warm-up": Kind(False, lambda n, _: scale * (n < count % 90)),
        "bounded": Kind(False, lambda n, _: scale * (n < count), lambda n: float(n < count), count),
        "full": Kind(False, lambda n, _: scale * (n < 80), lambda n: float(n < 80)),
        "a block now and then": Kind(False, lambda n, _: 90.0 * (n % 11 == 0)),
        "slower": Kind(False, lambda n, _: scale * 0.95**n),
        "one step": Kind(False, lambda n, _: 100 * scale * (n == count % 150)),
    }


class Seen(NamedTuple):
    """Runs of one process: what each left behind, and how it was measured."""

    sizes: list[float]
    how: list[int]


def seen(kind: Kind, runs: int, every: int, chance: random.Random) -> Seen:
    sizes = [kind.size(number, chance) for number in range(runs)]
    how = [
        AUDITED if number < 20 or chance.randrange(every) == 0 else chance.choice((READ, PLAIN))
        for number in range(runs)
    ]
    return Seen(sizes, how)


def told(kind: Kind, processes: list[Seen], *, fills: bool) -> Evidence:
    booked = []
    for sizes, how in processes:
        each = Process()
        for size, measured in zip(sizes, how, strict=True):
            if measured == AUDITED:
                each.audit(size / 90)
            elif measured == READ:
                each.read(size)
            else:
                each.run()
        booked.append(each)
    evidence = told_by(*booked)
    if kind.gains is None:
        return evidence
    held = [Holder("shop.held", "dict", 99, 20.0, kind.limit)]
    fill = fill_of([len(each.sizes) for each in processes], kind.gains)
    return dataclasses.replace(evidence, holders=held, fills=[fill] if fills else [])


def less(processes: list[Seen], chance: random.Random) -> list[Seen]:
    """Some of the processes, without the measurements of some of their runs: by chance, or in a
    stretch of runs."""
    left, share = [], chance.random()
    longest = max(len(each.sizes) for each in processes)
    start = chance.randrange(longest)
    stretch = range(start, chance.randrange(start, longest + 1))
    in_stretch = chance.random() < 0.5
    for sizes, how in chance.sample(processes, chance.randint(1, len(processes))):
        gone = [
            number in stretch if in_stretch else chance.random() < share
            for number in range(len(sizes))
        ]
        left.append(
            Seen(sizes, [PLAIN if out else how for out, how in zip(gone, how, strict=True)])
        )
    return left


def answer(evidence: Evidence, runs: int) -> str:
    verdict = verdict_on(evidence, runs=runs)
    if isinstance(verdict, Suspect):
        return "leaks"
    return "does not" if verdict.settled else "not known yet"


@given(
    name=st.sampled_from(sorted(kinds(1.0, 1))),
    scale=st.floats(200, 1e6),
    count=st.integers(40, 800),
    runs=st.integers(60, 700),
    seed=st.integers(0, 2**32),
)
@example(name="a block now and then", scale=200.0, count=40, runs=136, seed=587)
@settings(max_examples=LAW_EXAMPLES, deadline=None)
def test_taking_evidence_away_never_turns_an_answer_into_its_opposite(
    name: str, scale: float, count: int, runs: int, seed: int
) -> None:
    chance, kind = random.Random(seed), kinds(scale, count)[name]
    every = chance.choice((1, 2, 3, 6))
    processes = [
        seen(kind, max(1, runs + chance.randint(-20, 60)), every, chance)
        for _ in range(chance.randint(1, 4))
    ]
    total = sum(len(each.sizes) for each in processes)
    wrong = "does not" if kind.leaks else "leaks"
    assert answer(told(kind, processes, fills=True), total) != wrong
    for _ in range(2):
        evidence = told(kind, less(processes, chance), fills=chance.random() < 0.5)
        assert answer(evidence, total) != wrong
