"""What the profile of a task type says about its runs past start-up: means, errors, and whether it
goes on. Pure arithmetic.

The profile has ages (how many runs of the type its process had seen). A leak leaves as much behind
late as early; what fills up or warms up does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from celery_memory_exporter.common.evidence import AGES, Profile
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Mean:
    """Of bytes that a run left behind."""

    runs: float
    per_run: float
    error: float
    #: How many runs carried it, if all had left the same: one for a single step, however many runs
    #: there were.
    steps: float

    @property
    def total(self) -> float:
        return self.per_run * self.runs

    @property
    def certainty(self) -> float:
        """The mean in standard errors."""
        return (
            self.per_run / self.error
            if self.error > 0
            else math.copysign(math.inf, self.per_run)
            if self.per_run
            else 0.0
        )


NOTHING = Mean(0.0, 0.0, math.inf, 0.0)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of ages of one profile."""

    profile: Profile
    ages: range

    def sum(self, column: str) -> float:
        values: list[float] = getattr(self.profile, column)
        return sum(values[self.ages.start : self.ages.stop])

    @property
    def runs(self) -> float:
        return self.sum("runs")

    def mean(self) -> Mean:
        """What a run leaves behind: small amounts by the audited runs, large ones and drops by all
        measured runs."""
        audited, sampled = self.sum("audited"), self.sum("sampled")
        size = self.sum("blocks") * MEAN_BLOCK_BYTES + self.sum("native")
        small = _mean(
            audited, size - self.sum("large"), self.sum("squares") - self.sum("large_squares")
        )
        large = self.large()
        if not audited:
            return large
        whole = _mean(audited, size, self.sum("squares"))
        per_run = small.per_run + large.per_run
        return Mean(audited + sampled, per_run, math.hypot(small.error, large.error), whole.steps)

    def large(self) -> Mean:
        """The part of it that a reading without an audit tells. Garbage that audits found is taken
        off such readings."""
        audited, sampled = self.sum("audited"), self.sum("sampled")
        others = self.sum("sampled_bytes")
        others = max(min(0.0, others), others - sampled * self.garbage)
        squares = self.sum("large_squares") + self.sum("sampled_squares")
        return _mean(audited + sampled, self.sum("large") + others, squares)

    @property
    def garbage(self) -> float:
        """Bytes of reference cycles that an audited run left to the collector."""
        return self.per_audit("garbage_blocks") * MEAN_BLOCK_BYTES + self.per_audit(
            "garbage_native"
        )

    def per_audit(self, column: str) -> float:
        audited = self.sum("audited")
        return self.sum(column) / audited if audited else 0.0

    def later(self, share: float) -> Window:
        """The oldest ages that hold at least this share of the runs: not of the audits, of which a
        young process has most."""
        wanted, held = share * self.runs, 0.0
        for age in reversed(self.ages):
            held += self.profile.runs[age]
            if held >= wanted:
                return Window(self.profile, range(age, self.ages.stop))
        return self

    def before(self, later: Window) -> Window:
        return Window(self.profile, range(self.ages.start, later.ages.start))


def _mean(runs: float, size: float, squares: float) -> Mean:
    if runs <= 0:
        return NOTHING
    per_run = size / runs
    variance = max(0.0, squares / runs - per_run * per_run)
    return Mean(
        runs, per_run, math.sqrt(variance / runs), size * size / squares if squares > 0 else 0.0
    )


def window(profile: Profile, from_runs: int) -> Window:
    """From the age of so many runs on."""
    return Window(profile, range(min(AGES.index(from_runs), len(profile.runs)), len(profile.runs)))
