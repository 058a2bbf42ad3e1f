"""What a task type's evidence says: does it leave something behind past start-up, and does it go
on?

The rules that the verdict rests on, each with the reason beside its number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from celery_memory_exporter.common.evidence import WARM_RUNS, Estimate, Evidence, Fill
from celery_memory_exporter.common.report import TaskReport
from celery_memory_exporter.diagnosis.filling import LEAST_NEW_RUNS, STILL_LATE, still, whole_rate
from celery_memory_exporter.diagnosis.profile import Window, window
from celery_memory_exporter.fleet.snapshot import WorkerView

#: Of runs that are start-up (``WARM_RUNS``), where children do not live that long: the first few.
SHORT_WARM = 5
#: Runs of the type that a process must have seen. A cache of ninety entries has filled and shown it
#: by then; with two children a leak is named after some 240 runs (the median over the zoo).
SETTLED = 105
#: Where only some runs leave something behind, chance needs longer to show that it goes on.
SETTLED_BY_CHANCE, REGULAR = 115, 0.8
#: And one must have been measured from this age on.
SEEN = 90
#: Or: so many processes, and runs in all of them, where recycling lets none get that old.
GENERATIONS, GENERATION_RUNS = 3.0, 100.0
LEAST_AUDITS = 15.0
#: A quarter of a small object. Without blocks, more: the C heap's own caches come and go by some
#: hundred bytes in some runs.
LEAST_BYTES, LEAST_BLOCKS, LEAST_NATIVE_BYTES = 24.0, 0.25, 1024.0
CERTAIN = 3.0
#: A leak in few runs: several steps, not one, and large beside what free lists and late garbage
#: make of a reading.
STEPS, LEAST_STEP_BYTES, LEAST_STEP_TOTAL = 3.0, 512.0, 128 * 1024.0
#: Audits without which nothing is known of the later half, and of the last quarter.
LEAST_LATE_AUDITS, LEAST_LAST_AUDITS = 5.0, 3.0
#: Standard errors that chance is granted, where only some runs leave something behind.
MARGIN = 0.75
#: With few steps, chance decides how many fall into which half.
FEW_STEPS, STILL_LATE_FEW = 12.0, 0.25
#: Runs behind a container's filling up, and items that each may add.
LEAST_FILL_RUNS, MOST_PER_RUN = 60.0, 1.5
#: What counts its items in bytes or characters.
BUFFERS = frozenset({"bytearray", "BytesIO", "StringIO", "array"})
#: What grows less than this share of the container that grows most explains nothing.
MINOR = 0.1
#: Descriptors, threads or processes a run.
LEAST_COUNT = 0.1
LEAST_SHARED_BYTES = 1024.0
#: Of audited runs: in so many of its own they rise, and in so few of another task type's.
OWN_SHARE, OTHERS_SHARE = 0.5, 0.25
#: Of least squares: runs, intervals and standard errors.
OVERLAPPING_RUNS, OVERLAPPING_INTERVALS, OVERLAPPING_CERTAIN = 80, 12, 4.0
#: Runs that happened to be alone, to weigh against least squares.
LEAST_ALONE = 30
#: Garbage is growth until a full collection: with so many of them, it comes and goes.
LEAST_COLLECTIONS = 3
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
        if (
            shared is None
            or shared.error is None
            or (mean.runs >= LEAST_ALONE and mean.error < shared.error)
        ):
            return mean.per_run
        return shared.per_run

    @property
    def certainty(self) -> float:
        """In standard errors, of what speaks most for a leak."""
        shares = [self.overlapping, *(holder.share for holder in self.evidence.holders)]
        told = [
            share.per_run / max(share.error, 1e-9)
            for share in shares
            if share is not None and share.error is not None
        ]
        alone = self.steady.mean()
        return min(
            100.0, max([*told, alone.certainty if alone.runs >= LEAST_AUDITS else 0.0, CERTAIN])
        )


def steady_window(evidence: Evidence) -> Window:
    """Past start-up; where recycling lets processes live for few runs only, past the first few."""
    steady = window(evidence.profile, WARM_RUNS)
    if steady.runs < GENERATION_RUNS and evidence.processes >= GENERATIONS:
        return window(evidence.profile, SHORT_WARM)
    return steady


def settled(case: Case) -> bool:
    if case.overlapping is not None:
        return (
            case.overlapping.runs >= OVERLAPPING_RUNS
            and case.overlapping.intervals >= OVERLAPPING_INTERVALS
        )
    profile, steady = case.evidence.profile, case.steady
    mean = steady.mean()
    # Of descriptors and the like each run is seen by itself.
    regular = mean.steps >= REGULAR * steady.sum("audited") or mean.per_run < LEAST_BYTES
    seen = window(profile, SEEN)
    old = window(profile, SETTLED if regular else SETTLED_BY_CHANCE).runs >= LEAST_NEW_RUNS
    measured = seen.sum("audited") + seen.sum("sampled") > 0
    return (old and measured) or (
        case.evidence.processes >= GENERATIONS and steady.runs >= GENERATION_RUNS
    )


def leaks_steadily(steady: Window) -> bool:
    """By audited runs, most of all."""
    mean, audited = steady.mean(), steady.sum("audited")
    told = (
        steady.per_audit("blocks") >= LEAST_BLOCKS
        or mean.per_run >= LEAST_NATIVE_BYTES
        or mean.steps >= audited / 2
    )
    return (
        told
        and audited >= LEAST_AUDITS
        and mean.per_run >= LEAST_BYTES
        and mean.certainty >= CERTAIN
        and mean.steps >= STEPS
    )


def leaks_in_steps(whole: Window) -> bool:
    """By all measured runs: much in few of them."""
    large = whole.large()
    return (
        large.per_run >= LEAST_STEP_BYTES
        and large.total >= LEAST_STEP_TOTAL
        and large.steps >= STEPS
    )


def garbage_aside(case: Case) -> bool:
    """Whether least squares saw garbage come and go: each run leaves some to the collector, of the
    worker's own at least."""
    return case.evidence.collections >= LEAST_COLLECTIONS


def contradicted(case: Case) -> bool:
    """Whether runs that happened to be alone left behind much less than least squares say."""
    alone, shared = case.steady.mean(), case.overlapping
    if shared is None or alone.runs < LEAST_ALONE:
        return False
    return alone.per_run + CERTAIN * alone.error < shared.per_run / 2


def goes_on(steady: Window) -> bool:
    """Whether the later half and the last quarter leave as much behind as what was before, by
    audited runs.

    By bytes, or by blocks alone: a table that all of them are in grows in steps that get larger and
    rarer.
    """
    late, last = steady.later(0.5), steady.later(0.25)
    if late.sum("audited") < LEAST_LATE_AUDITS or last.sum("audited") < LEAST_LAST_AUDITS:
        return False
    parts = (steady.before(late), late, last)
    means = [part.mean() for part in parts]
    blocks = [(part.per_audit("blocks"), 0.0) for part in parts]
    return still([(mean.per_run, MARGIN * mean.error) for mean in means]) or (
        blocks[2][0] >= LEAST_BLOCKS and still(blocks)
    )


def fills_of(case: Case) -> list[Fill]:
    """How the unbounded containers that take most have filled up, by all runs; without those of
    which that is not known well.

    Of containers that gain about an item a run at most: the more items at a time, the less their
    number says about chance. Or of buffers, whose items are bytes.
    """
    largest = max((holder.growth for holder in case.evidence.holders), default=0.0)
    kinds = {
        each.path: each.kind
        for each in case.evidence.holders
        if each.limit is None and each.growth >= MINOR * largest
    }
    known = [
        fill
        for fill in case.evidence.fills
        if fill.path in kinds and sum(fill.runs) >= LEAST_FILL_RUNS
    ]
    return [
        fill
        for fill in known
        if 0 < whole_rate(fill) <= (math.inf if kinds[fill.path] in BUFFERS else MOST_PER_RUN)
    ]


def gains_surely(case: Case, fill: Fill) -> bool:
    """Whether it gained items enough to be no chance, and runs leave something behind at all. A
    buffer grows by an eighth of itself at a time, in steps that audits may all miss: what it gains
    is bytes."""
    enough = sum(fill.gains) >= CERTAIN**2 and case.steady.sum("audited") >= LEAST_AUDITS
    return enough and (case.bytes_per_run >= LEAST_BYTES or whole_rate(fill) >= LEAST_STEP_BYTES)


def survivors_per_run(evidence: Evidence) -> dict[str, float]:
    """Objects by type that outlive a run; survivors are told of audited runs past the first few,
    deep ones included."""
    runs = window(evidence.profile, SHORT_WARM).sum("audited") + evidence.deep_audits
    return {name: count / max(1.0, runs) for name, count in evidence.survivors.items()}


def steps_go_on(whole: Window) -> bool:
    """Whether much in few runs is left behind in the later half as in the earlier one."""
    late = whole.later(0.5)
    first, second = whole.before(late).large(), late.large()
    if whole.large().steps < FEW_STEPS:
        # Either half may have had less luck, but not none.
        return min(first.per_run, second.per_run) >= STILL_LATE_FEW * max(
            first.per_run, second.per_run
        )
    return second.per_run >= STILL_LATE * first.per_run


def counts_go_on(steady: Window, column: str) -> bool:
    """In either half as in the other one: what was opened once, late or early, is no rate."""
    late = steady.later(0.5)
    early = steady.before(late)
    if early.sum("audited") == 0:
        return True
    less, more = sorted((early, late), key=lambda half: half.per_audit(column))
    chance = math.sqrt(max(0.0, less.sum(column))) / max(1.0, less.sum("audited"))
    return less.per_audit(column) + chance >= STILL_LATE * more.per_audit(column)


def stands(estimate: Estimate | None, least: float) -> bool:
    """Whether an estimate by least squares is above zero beyond doubt, and still is in the later
    half."""
    if estimate is None or estimate.error is None or estimate.runs < OVERLAPPING_RUNS:
        return False
    if estimate.intervals < OVERLAPPING_INTERVALS or estimate.per_run < max(
        least, OVERLAPPING_CERTAIN * estimate.error
    ):
        return False
    # Where the later half alone tells nothing, the whole fits a steady share: what had stopped
    # would not.
    return (
        estimate.late_error is None
        or estimate.late_per_run >= STILL_LATE * estimate.per_run - 2 * estimate.late_error
    )
