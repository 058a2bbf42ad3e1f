"""Does it go on? What is left behind late beside what was left early, and how a container fills up.
Pure arithmetic.

A leak gains as much late as early. A cache that is filled by chance gains ever less, one that is
filled in order stops at once.
"""

from __future__ import annotations

import math
from operator import mul

from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Fill

#: The later half, and the last quarter, have to leave at least this share of what was left before.
STILL_LATE, STILL_LAST = 0.6, 0.7
#: Runs without which an age says nothing, and the share of the rate over all ages that the newest
#: one has to have.
LEAST_NEW_RUNS, STILL_NEW = 5.0, 0.3
#: Standard errors by which gains may come earlier than runs by chance: before the age of so many
#: runs, and later. A cache of a hundred entries that is filled by chance looks much like a leak at
#: first, and is full later on.
EARLY_CHANCE, EARLY_RUNS, CHANCE = 0.8, 180, 2.0


def still(parts: list[tuple[float, float]]) -> bool:
    """Whether as much was left behind late, and last, as before: three means, each with what chance
    may have taken off it."""
    (first, _), (second, spared), (third, spared_last) = parts
    return second + spared >= STILL_LATE * first and third + spared_last >= STILL_LAST * max(
        first, second
    )


def keeps_filling(fill: Fill) -> bool:
    """Whether the container gains now as it did before, as far as chance lets one tell."""
    newest = newest_age(fill)
    if newest is None or newest_rate(fill) < STILL_NEW * whole_rate(fill):
        return False
    early = AGES[AGES.index(WARM_RUNS) + newest] < EARLY_RUNS
    return slowing(fill) < (EARLY_CHANCE if early else CHANCE)


def whole_rate(fill: Fill) -> float:
    """Items a run, over all that is known."""
    return rate(fill, slice(None))


def newest_age(fill: Fill) -> int | None:
    """The newest age with runs enough to say something, counted from the end of start-up."""
    return max((age for age, runs in enumerate(fill.runs) if runs >= LEAST_NEW_RUNS), default=None)


def newest_rate(fill: Fill) -> float:
    """Items a run in the newest age; below any rate where there is none."""
    newest = newest_age(fill)
    return -math.inf if newest is None else rate(fill, slice(newest, newest + 1))


def rate(fill: Fill, ages: slice) -> float:
    """Items a run in these ages."""
    return sum(fill.gains[ages]) / max(1.0, sum(fill.runs[ages]))


def slowing(fill: Fill) -> float:
    """How much earlier in the life of processes the gains are than the runs, in standard errors.

    The score test for a trend in Poisson rates, which is the strongest one against rates that decay
    exponentially, as those of a cache do that is filled by chance.
    """
    first = AGES.index(WARM_RUNS)
    bounds = [*AGES, 2 * AGES[-1]]
    middles = [
        (bounds[first + at] + min(bounds[first + at + 1], bounds[first + at] + runs)) / 2
        for at, runs in enumerate(fill.runs)
    ]
    runs, gains = sum(fill.runs), sum(fill.gains)
    mean = sum(map(mul, middles, fill.runs)) / runs
    spread = (
        sum(count * (middle - mean) ** 2 for middle, count in zip(middles, fill.runs, strict=True))
        / runs
    )
    later = sum(
        gained * (middle - mean) for middle, gained in zip(middles, fill.gains, strict=True)
    )
    return -float(later) / math.sqrt(max(1e-9, spread * gains))
