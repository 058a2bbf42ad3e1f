"""When it will be known of a task type whether it leaks, if its runs go on as they did."""

from __future__ import annotations

from celery_memory_exporter.diagnosis.filling import LEAST_NEW_RUNS
from celery_memory_exporter.diagnosis.innocence import audits_missing
from celery_memory_exporter.diagnosis.rules import OVERLAPPING_RUNS, SETTLED, Case, runs_enough


def seconds_until_known(case: Case) -> float | None:
    """Seconds at the rate of runs so far; ``None`` where that cannot be told: nothing is known of
    how often its later runs are audited, or it is not for runs that one waits."""
    missing = runs_missing(case)
    if missing is None or missing <= 0 or not case.runs:
        return None
    return round(missing * case.evidence.seconds / case.runs)


def runs_missing(case: Case) -> float | None:
    """Runs in all processes together until there are enough."""
    if case.overlaps:
        return OVERLAPPING_RUNS - (case.overlapping.runs if case.overlapping else 0)
    if not runs_enough(case):
        processes = max(1, len(case.processes))
        return processes * SETTLED + LEAST_NEW_RUNS - sum(case.evidence.profile.runs)
    missing = audits_missing(case)
    if missing is None or not missing.has:
        return None
    # What counts as late grows with all runs, and its audits with it.
    return case.steady.sums.runs * (missing.needed / missing.has - 1)
