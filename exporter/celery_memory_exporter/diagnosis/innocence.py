"""What shows that the runs of a task type leave nothing behind.

That nothing was seen shows nothing by itself: what comes in one run of twenty is missed by a few
audits. So there have to be audits enough of late runs, by how often earlier ones left something
behind, and what they left has to be nothing, within what chance may do.
"""

from __future__ import annotations

import math

from celery_memory_exporter.common.evidence import Estimate
from celery_memory_exporter.common.left_behind import LEAST_LARGE_BYTES
from celery_memory_exporter.diagnosis.going_on import Missing, late_audits_missing, misses
from celery_memory_exporter.diagnosis.profile import Window, stretch
from celery_memory_exporter.diagnosis.rules import Case

#: Audited runs past start-up where none has ever left anything behind: what comes in one run of ten
#: is missed by one type in twenty-five.
LEAST_AUDITS = 30.0
#: Late audits where something was left behind before. What comes in one run of k is in none of
#: 9 * k of them once in ten thousand times; but how often it comes is known by few audits, and
#: after a single step that would be hundreds.
LEAST_LATE, MOST_LATE = 15.0, 60.0
#: Bytes a run, by the mean of late runs and so many standard errors above it: half a small object.
NOTHING_BYTES, NOTHING_ERRORS = 48.0, 2.0


def audits_missing(case: Case) -> Missing | None:
    """``None`` where there are enough to say that nothing is left behind."""
    steady = case.steady
    too_few = late_audits_missing(steady)
    if too_few:
        return too_few
    late = steady.later(0.5)
    early = stretch(case.evidence.profile, range(late.ages.start)).sums
    left = early.audited_mean()
    if left.steps and left.per_run > 0:
        has, needed = late.sums.audited, min(max(LEAST_LATE, 2 * misses(left)), MOST_LATE)
    else:
        has, needed = steady.sums.audited, LEAST_AUDITS
    needed = math.ceil(needed)
    return Missing(has, needed) if has < needed else None


def shares_nothing(estimate: Estimate) -> bool:
    """Whether by least squares nothing is left behind, beyond what chance may hide: where runs
    overlap, that is more."""
    if estimate.error is None:
        return False
    return estimate.per_run + NOTHING_ERRORS * estimate.error < LEAST_LARGE_BYTES


def leaves_nothing(steady: Window) -> bool:
    """Whether late runs leave nothing behind, beyond what chance may hide. Where runs make garbage,
    what single readings hold of it says nothing."""
    late = steady.later(0.5).sums
    mean = late.audited_mean() if late.garbage else late.mean()
    return mean.per_run + NOTHING_ERRORS * mean.error < NOTHING_BYTES
