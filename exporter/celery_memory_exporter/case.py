"""What a task type's evidence says: does it leave something behind past start-up, and does it go on?

The rules that the verdict rests on, each with the reason beside its number.
"""

from __future__ import annotations

from dataclasses import dataclass

from celery_memory_exporter.report import Estimate, Evidence, TaskReport
from celery_memory_exporter.snapshot import WorkerView
from celery_memory_exporter.windows import Window, window

#: Runs of a type in a process that are start-up; where children do not live that long, the first few.
WARM, SHORT_WARM = 30, 5
#: Runs of the type that a process must have seen. A cache of ninety entries has filled and shown it by then; with two children
#: a leak is named after some 210 runs.
SETTLED = 105
#: And one must have been measured from this age on.
SEEN = 90
#: Or: so many processes, and runs in all of them, where recycling lets none get that old.
GENERATIONS, GENERATION_RUNS = 3.0, 100.0
LEAST_AUDITS = 15.0
#: A quarter of a small object. Without blocks, more: the C heap's own caches come and go by some hundred bytes in some runs.
LEAST_BYTES, LEAST_BLOCKS, LEAST_NATIVE_BYTES = 24.0, 0.25, 2048.0
CERTAIN = 3.0
#: A leak in few runs: several steps, not one, and large beside what free lists and late garbage make of a reading.
STEPS, LEAST_STEP_BYTES, LEAST_STEP_TOTAL = 3.0, 512.0, 128 * 1024.0
STILL_LATE, STILL_LAST = 0.6, 0.7
#: Audits without which nothing is known of the later half, and of the last quarter.
LEAST_LATE_AUDITS, LEAST_LAST_AUDITS = 5.0, 3.0
#: Standard errors that chance is granted, where only some runs leave something behind.
MARGIN = 0.75
#: With few steps, chance decides how many fall into which half.
FEW_STEPS, STILL_LATE_FEW = 12.0, 0.25
#: Descriptors, threads or processes a run.
LEAST_COUNT = 0.1
LEAST_SHARED_BYTES = 1024.0
#: Of least squares: runs, intervals and standard errors.
OVERLAPPING_RUNS, OVERLAPPING_INTERVALS, OVERLAPPING_CERTAIN = 100, 12, 4.0
OVERLAPPING_POOLS = ("threads", "gevent", "eventlet")
#: Items that a run adds to a container.
LEAST_ITEMS = 0.02
#: What the kernel counts, by the class of growth.
COUNTED = {"fds": "descriptors", "threads": "threads", "children": "processes"}


@dataclass(frozen=True, slots=True)
class Case:
    """One task type of one worker."""

    worker: WorkerView
    task: TaskReport
    evidence: Evidence
    steady: Window

    @property
    def runs(self) -> int:
        return sum(self.task.runs.values())

    @property
    def overlapping(self) -> Estimate | None:
        """Where runs share their process."""
        pool = self.worker.report.pool if self.worker.report else ""
        return self.evidence.overlapping if pool in OVERLAPPING_POOLS else None

    @property
    def bytes_per_run(self) -> float:
        """By whichever tells it more closely."""
        mean, shared = self.steady.mean(), self.overlapping
        if shared is not None and shared.error is not None and shared.error < mean.error:
            return shared.per_run
        return mean.per_run

    @property
    def certainty(self) -> float:
        """In standard errors, of what speaks most for a leak."""
        shares = [self.overlapping, *(holder.share for holder in self.evidence.holders)]
        told = [share.per_run / max(share.error, 1e-9) for share in shares if share is not None and share.error is not None]
        return min(100.0, max([*told, self.steady.mean().certainty, CERTAIN]))


def steady_window(evidence: Evidence) -> Window:
    """Past start-up; where recycling lets processes live for few runs only, past the first few."""
    steady = window(evidence.profile, WARM)
    if steady.runs < GENERATION_RUNS and evidence.processes >= GENERATIONS:
        return window(evidence.profile, SHORT_WARM)
    return steady


def settled(case: Case) -> bool:
    if case.overlapping is not None:
        return case.overlapping.runs >= OVERLAPPING_RUNS and case.overlapping.intervals >= OVERLAPPING_INTERVALS
    profile = case.evidence.profile
    old = window(profile, SETTLED).runs > 0 and window(profile, SEEN).sum("audited") + window(profile, SEEN).sum("sampled") > 0
    return old or (case.evidence.processes >= GENERATIONS and case.steady.runs >= GENERATION_RUNS)


def leaks_steadily(steady: Window) -> bool:
    """By audited runs, most of all."""
    mean, audited = steady.mean(), steady.sum("audited")
    told = steady.per_audit("blocks") >= LEAST_BLOCKS or mean.per_run >= LEAST_NATIVE_BYTES or mean.steps >= audited / 2
    return told and audited >= LEAST_AUDITS and mean.per_run >= LEAST_BYTES and mean.certainty >= CERTAIN and mean.steps >= STEPS


def leaks_in_steps(whole: Window) -> bool:
    """By all measured runs: much in few of them."""
    large = whole.large()
    return large.per_run >= LEAST_STEP_BYTES and large.total >= LEAST_STEP_TOTAL and large.steps >= STEPS


def goes_on(steady: Window) -> bool:
    """Whether the later half and the last quarter leave as much behind as what was before, by audited runs."""
    late, last = steady.later(0.5), steady.later(0.25)
    if late.sum("audited") < LEAST_LATE_AUDITS or last.sum("audited") < LEAST_LAST_AUDITS:
        return False
    first, second, third = (part.mean() for part in (steady.before(late), late, last))
    if second.per_run + MARGIN * second.error < STILL_LATE * first.per_run:
        return False
    return third.per_run + MARGIN * third.error >= STILL_LAST * max(first.per_run, second.per_run)


def steps_go_on(whole: Window) -> bool:
    """Whether much in few runs is left behind in the later half as in the earlier one."""
    late = whole.later(0.5)
    first, second = whole.before(late).large(), late.large()
    if whole.large().steps < FEW_STEPS:
        # Either half may have had less luck, but not none.
        return min(first.per_run, second.per_run) >= STILL_LATE_FEW * max(first.per_run, second.per_run)
    return second.per_run >= STILL_LATE * first.per_run


def counts_go_on(steady: Window, column: str) -> bool:
    late = steady.later(0.5)
    early = steady.before(late)
    return early.sum("audited") == 0 or late.per_audit(column) >= STILL_LATE * early.per_audit(column)


def stands(estimate: Estimate | None, least: float) -> bool:
    """Whether an estimate by least squares is above zero beyond doubt, and still is in the later half."""
    if estimate is None or estimate.error is None or estimate.runs < OVERLAPPING_RUNS:
        return False
    if estimate.intervals < OVERLAPPING_INTERVALS or estimate.per_run < max(least, OVERLAPPING_CERTAIN * estimate.error):
        return False
    # Where the later half alone tells nothing, the whole fits a steady share: what had stopped would not.
    return estimate.late_error is None or estimate.late_per_run >= STILL_LATE * estimate.per_run - 2 * estimate.late_error
