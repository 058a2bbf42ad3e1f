"""Stretches of a profile: what runs left behind at some ages of their processes. Pure arithmetic.

The profile has ages (how many runs of the type its process had seen). A leak leaves as much behind
late as early; what fills up or warms up does not.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from celery_memory_exporter.common.evidence import AGES, Profile
from celery_memory_exporter.common.left_behind import Sums

COLUMNS = tuple(each.name for each in dataclasses.fields(Profile))


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of ages of one profile, and the profile's columns added up over it."""

    profile: Profile
    ages: range
    sums: Sums

    def later(self, share: float) -> Window:
        """The oldest ages that hold at least this share of the runs: not of the audits, of which a
        young process has most."""
        wanted, held = share * self.sums.runs, 0.0
        for age in reversed(self.ages):
            held += self.profile.runs[age]
            if held >= wanted:
                return stretch(self.profile, range(age, self.ages.stop))
        return self

    def before(self, later: Window) -> Window:
        """The ages of this stretch that come before the later one."""
        return stretch(self.profile, range(self.ages.start, later.ages.start))


def stretch(profile: Profile, ages: range) -> Window:
    """These ages of the profile; it may have fewer."""
    columns = [getattr(profile, column) for column in COLUMNS]
    return Window(profile, ages, Sums(*[sum(each[ages.start : ages.stop]) for each in columns]))


def window(profile: Profile, from_runs: int) -> Window:
    """From the age of so many runs on, which is one of ``AGES``."""
    reached = len(profile.runs)
    return stretch(profile, range(min(AGES.index(from_runs), reached), reached))
