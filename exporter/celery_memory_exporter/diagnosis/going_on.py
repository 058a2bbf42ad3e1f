"""Does what runs leave behind go on? What later ones leave, beside what earlier ones did."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Fill
from celery_memory_exporter.common.left_behind import LEAST_BLOCKS, Mean, Sums
from celery_memory_exporter.diagnosis.filling import (
    LEAST_NEW_RUNS,
    STILL_LATE,
    keeps_filling,
    still,
)
from celery_memory_exporter.diagnosis.profile import Window, stretch, window

#: A verdict needs at least one audited or sampled run of a process that had already seen this many
#: runs of the type.
SEEN = 90
#: Audited runs without which nothing is known of the later half, and of the last quarter.
LEAST_LATE_AUDITS, LEAST_LAST_AUDITS = 5.0, 3.0
#: Standard errors that chance is granted, where only some runs leave something behind.
MARGIN = 0.75
#: Below so many steps, chance decides how many fall into which half: then the smaller half needs
#: only this share of the larger one.
FEW_STEPS, STILL_LATE_FEW = 12.0, 0.25

#: Where only some runs leave something behind: unless this share of the audited ones carries the
#: mean.
REGULAR = 0.8
#: What is called chance: once in a hundred times.
BY_CHANCE = 0.01
#: What is nothing: this share of what a run left before, and all together this share of what one of
#: those left that left something.
SMALL, LESS_THAN_ONE = 0.1, 0.5
#: Bounds of the share of runs that leave something behind: two that do not are no chance, nor are
#: thousands.
LEAST_OFTEN, MOST_OFTEN = 0.001, 0.95


class Missing(NamedTuple):
    """Audits of later runs: how many there are, of how many that it takes."""

    has: float
    needed: float


def latest(steady: Window) -> Window:
    """The oldest quarter of the runs, or those past ``SEEN`` where these are fewer: some processes
    may have seen many runs, and others few."""
    quarter, old = steady.later(0.25), window(steady.profile, SEEN)
    older = old.sums.runs >= LEAST_NEW_RUNS and old.ages.start > quarter.ages.start
    return old if older else quarter


def late_audits_missing(steady: Window, column: str = "audited") -> Missing | None:
    """How many audits the later half or the last quarter has of those that it needs; ``None`` where
    both have enough. Without them nothing is known of what goes on, and of what has stopped.
    ``column``: or of which other readings."""
    late, last = (getattr(part.sums, column) for part in (steady.later(0.5), latest(steady)))
    if late < LEAST_LATE_AUDITS:
        return Missing(late, LEAST_LATE_AUDITS)
    return Missing(last, LEAST_LAST_AUDITS) if last < LEAST_LAST_AUDITS else None


def stopped(whole: Window, told_by: Callable[[Sums], Mean]) -> bool:
    """Whether the oldest runs that are ``told_by`` a mean left nothing behind, and by how often the
    others did, so many in turn would not by chance."""
    for age in whole.ages:
        since = stretch(whole.profile, range(age, whole.ages.stop))
        before, after = told_by(whole.before(since).sums), told_by(since.sums)
        rarely = after.per_run <= SMALL * before.per_run
        if rarely and before.steps and after.total <= LESS_THAN_ONE * before.total / before.steps:
            return after.runs >= misses(before)
    return False


def misses(left: Mean) -> float:
    """How many runs in turn would leave nothing behind by chance, if they left as often as these:
    once in a hundred times."""
    often = min(MOST_OFTEN, max(LEAST_OFTEN, left.steps / max(1.0, left.runs)))
    return math.log(BY_CHANCE) / math.log(1 - often)


def goes_on(steady: Window) -> bool:
    """Whether the later half and the last quarter leave as much behind as what was before, by
    audited runs.

    By bytes, or by blocks alone: a table that all of them are in grows in steps that get larger and
    rarer.
    """
    if late_audits_missing(steady) or stopped(steady, Sums.audited_mean):
        return False
    late, last = steady.later(0.5), latest(steady)
    parts = [part.sums for part in (steady.before(late), late, last)]
    if parts[0].audited < LEAST_LAST_AUDITS:  # beside what?
        return False
    if steady.ages.start == AGES.index(WARM_RUNS) and slows_down(steady):
        return False
    means = [part.mean() for part in parts]
    blocks = [(part.per_audit("blocks"), 0.0) for part in parts]
    return still([(mean.per_run, MARGIN * mean.error) for mean in means]) or (
        blocks[2][0] >= LEAST_BLOCKS and still(blocks)
    )


def slows_down(steady: Window) -> bool:
    """Whether runs of which only some leave something behind do so ever more seldom: then it may be
    a cache that is filled by chance."""
    mean, profile = steady.sums.audited_mean(), steady.profile
    if mean.per_run <= 0 or mean.steps >= REGULAR * mean.runs:
        return False
    step = mean.total / mean.steps
    ages = [stretch(profile, range(age, age + 1)).sums for age in steady.ages]
    gains = [max(0.0, each.size) / step for each in ages]
    return not keeps_filling(Fill("", gains, [each.audited for each in ages]))


def steps_go_on(whole: Window) -> bool:
    """Whether much in few runs is left behind in the later half as in the earlier one, and has not
    stopped since."""
    if late_audits_missing(whole, "measured") or stopped(whole, Sums.large_mean):
        return False
    late = whole.later(0.5)
    first, second = whole.before(late).sums.large_mean(), late.sums.large_mean()
    if whole.sums.large_mean().steps < FEW_STEPS:
        # Either half may have had less luck, but not none.
        less, more = sorted((first.per_run, second.per_run))
        return less >= STILL_LATE_FEW * more
    return second.per_run >= STILL_LATE * first.per_run


def counts_go_on(steady: Window, column: str) -> bool:
    """Whether either half leaves as much behind as the other one: what was opened once, late or
    early, is no rate."""
    late = steady.later(0.5)
    early = steady.before(late)
    if early.sums.audited == 0:
        return True
    less, more = sorted((early.sums, late.sums), key=lambda half: half.per_audit(column))
    left: float = getattr(less, column)
    chance = math.sqrt(max(0.0, left)) / max(1.0, less.audited)
    return less.per_audit(column) + chance >= STILL_LATE * more.per_audit(column)
