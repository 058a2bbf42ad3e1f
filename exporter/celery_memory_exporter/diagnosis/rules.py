"""What a task type's evidence says: does it leave something behind past start-up, and does it go
on?

The rules that the verdict rests on, each with the reason beside its number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from celery_memory_exporter.common.evidence import WARM_RUNS, Estimate, Evidence, Fill
from celery_memory_exporter.common.left_behind import (
    LEAST_BYTES,
    LEAST_LARGE_BYTES,
    VERDICT,
    LeftBehind,
)
from celery_memory_exporter.common.report import ProcessReport, TaskReport
from celery_memory_exporter.diagnosis.filling import LEAST_NEW_RUNS, STILL_LATE, whole_rate
from celery_memory_exporter.diagnosis.going_on import REGULAR, SEEN
from celery_memory_exporter.diagnosis.process_growth import kept_of_claimed, span
from celery_memory_exporter.diagnosis.profile import Window, window
from celery_memory_exporter.fleet.snapshot import WorkerView

#: Where children do not live for ``WARM_RUNS`` runs, start-up is the first few.
SHORT_WARM = 5
#: Runs of the type that a process must have seen. A cache of ninety entries has filled and shown it
#: by then; with two children a leak is named after some 240 runs (the median over the zoo).
SETTLED = 105
#: Where only some runs leave something behind, chance needs longer to show that it goes on.
SETTLED_BY_CHANCE = 115
#: Where recycling lets no process get that old: so many that are gone, and runs in all of them.
GENERATIONS, GENERATION_RUNS = 3.0, 100.0
#: Runs while a container filled up, without which that is not known well; and items a run, above
#: which their number says little about chance.
LEAST_FILL_RUNS, MOST_PER_RUN = 60.0, 1.5
#: Containers that count their items in bytes or characters.
BUFFERS = frozenset({"bytearray", "BytesIO", "StringIO", "array"})
#: What grows less than this share of the container that grows most explains nothing.
MINOR = 0.1
#: An estimate by least squares rests on at least so many runs and intervals, and is so many
#: standard errors above zero.
OVERLAPPING_RUNS, OVERLAPPING_INTERVALS, OVERLAPPING_CERTAIN = 80, 12, 4.0
#: Runs that happened to be alone, to weigh against least squares.
LEAST_ALONE = 30
#: Garbage is growth until a full collection: with so many of them, it comes and goes.
LEAST_COLLECTIONS = 3
OVERLAPPING_POOLS = ("threads", "gevent", "eventlet")
#: Of what runs are said to have left behind: where less is there, they did not.
REFUTED_SHARE = 0.5
#: Live memory comes and goes by less than this. A leak's rises by what its runs left behind: this
#: share of it is far too little.
LEAST_CLAIMED, LEAST_KEPT_SHARE = 1024 * 1024.0, 0.25
#: Standard errors that are taken off what is claimed: much in few runs is claimed by few audits.
CLAIMED_ERRORS = 2.0
#: By the column of what the kernel counts: the class of growth.
CLASS_OF_COUNT = {"fds": "descriptors", "threads": "threads", "children": "processes"}


@dataclass(frozen=True, slots=True)
class Case:
    """One task type of one worker, and what its runs past start-up left behind."""

    worker: WorkerView
    task: TaskReport
    evidence: Evidence
    steady: Window

    @property
    def runs(self) -> int:
        return sum(self.task.runs.values())

    @property
    def processes(self) -> list[ProcessReport]:
        """Those that run tasks: the children, or the main process where it has none."""
        figures = [view.figures for view in self.worker.processes]
        return [each for each in figures if each.process != "main"] or figures

    @property
    def overlaps(self) -> bool:
        """Whether runs share their process: they are not audited, and single readings have Celery's
        own garbage in them, so that least squares alone tell."""
        return self.worker.report is not None and self.worker.report.pool in OVERLAPPING_POOLS

    @property
    def overlapping(self) -> Estimate | None:
        """Bytes a run by least squares, where runs share their process; ``None`` also where nothing
        is estimated yet."""
        return self.evidence.overlapping if self.overlaps else None

    @property
    def bytes_per_run(self) -> float:
        """By measured runs or by least squares, whichever tells it more closely."""
        mean, shared = self.steady.sums.mean(), self.overlapping
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
        estimates = [
            share.per_run / max(share.error, 1e-9)
            for share in shares
            if share is not None and share.error is not None
        ]
        mean = self.steady.sums.mean()
        measured = mean.certainty if mean.runs >= VERDICT.audits else 0.0
        return min(100.0, max([*estimates, measured, VERDICT.certainty]))


def steady_window(evidence: Evidence) -> Window:
    """Past start-up; where recycling lets processes live for few runs only, past the first few."""
    steady = window(evidence.profile, WARM_RUNS)
    if steady.sums.runs < GENERATION_RUNS and evidence.processes >= GENERATIONS:
        return window(evidence.profile, SHORT_WARM)
    return steady


def settled(case: Case) -> bool:
    """Whether processes have seen runs enough for a verdict."""
    if case.overlaps:
        shared = case.overlapping
        return shared is not None and (
            shared.runs >= OVERLAPPING_RUNS and shared.intervals >= OVERLAPPING_INTERVALS
        )
    profile, steady = case.evidence.profile, case.steady.sums
    mean = steady.mean()
    # Of descriptors and the like each run is seen by itself.
    regular = mean.steps >= REGULAR * steady.audited or mean.per_run < LEAST_BYTES
    ripe = window(profile, SETTLED if regular else SETTLED_BY_CHANCE)
    old = ripe.sums.runs >= LEAST_NEW_RUNS and window(profile, SEEN).sums.measured > 0
    gone = case.evidence.processes - len(case.processes)
    return old or (gone >= GENERATIONS and steady.runs >= GENERATION_RUNS)


def runs_enough(case: Case) -> bool:
    """Whether some process has seen the runs that it takes before anything is said."""
    return window(case.evidence.profile, SETTLED).sums.runs >= LEAST_NEW_RUNS


def unmeasured(case: Case) -> bool:
    """Whether there are runs enough, and nothing has been read of the later ones."""
    if case.overlaps:
        return False
    return runs_enough(case) and not window(case.evidence.profile, SEEN).sums.measured


def leaks_steadily(steady: Window) -> bool:
    """Whether audited runs leave memory behind beyond doubt: audits enough, bytes a run, standard
    errors above zero, and spread over several runs, as ``VERDICT`` asks for."""
    return LeftBehind(steady.sums, VERDICT).steadily > 0


def leaks_in_steps(whole: Window) -> bool:
    """Whether few of all the measured runs leave much behind, as ``VERDICT`` asks for."""
    return LeftBehind(whole.sums, VERDICT).in_steps > 0


def garbage_aside(case: Case) -> bool:
    """Whether least squares saw garbage come and go: each run leaves some to the collector, of the
    worker's own at least."""
    return case.evidence.collections >= LEAST_COLLECTIONS


def contradicted(case: Case) -> bool:
    """Whether runs that happened to be alone left behind much less than least squares say."""
    alone, shared = case.steady.sums.mean(), case.overlapping
    if shared is None or alone.runs < LEAST_ALONE:
        return False
    return alone.per_run + VERDICT.certainty * alone.error < shared.per_run / 2


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
    no_chance = sum(fill.gains) >= VERDICT.certainty**2
    enough = no_chance and case.steady.sums.audited >= VERDICT.audits
    return enough and (case.bytes_per_run >= LEAST_BYTES or whole_rate(fill) >= LEAST_LARGE_BYTES)


def survivors_per_run(evidence: Evidence) -> dict[str, float]:
    """Objects by type that outlive a run; survivors are told of audited runs past the first few,
    deep ones included."""
    runs = window(evidence.profile, SHORT_WARM).sums.audited + evidence.deep_audits
    return {name: count / max(1.0, runs) for name, count in evidence.survivors.items()}


def refuted(case: Case, column: str) -> bool:
    """Whether there are too few of them in the processes by far, for what each run is said to leave
    behind: a timer's thread is there when its run ends, and is gone a little later."""
    kept = {"fds": "open_fds", "threads": "threads"}.get(column, "")
    there: list[Any] = [getattr(figures, kept, None) for figures in case.processes]
    if not there or None in there:
        return False
    claimed = case.steady.sums.per_audit(column) * case.task.retained_runs
    return bool(sum(there) < REFUTED_SHARE * claimed)


def absent(case: Case) -> bool:
    """Whether what the type's runs are said to have left behind is not there: the live memory of
    its processes has not risen by a quarter of it. Where other types claim more, it may be theirs
    that is not."""
    assert case.worker.report is not None
    if case.overlapping is not None:
        claimed = case.overlapping.per_run * case.overlapping.runs
        there = sum(span(each, "live_bytes") for each in case.processes)
        return claimed >= LEAST_CLAIMED and 0 < there < LEAST_KEPT_SHARE * claimed
    # First, since it leaves one type of a worker or two: all have the same histories to go through.
    of_all = sum(each.retained_bytes for each in case.worker.report.tasks)
    if case.task.retained_bytes < of_all / 2:
        return False
    figures = [kept_of_claimed(each) for each in case.processes]
    kept, claimed = (sum(each) for each in zip(*figures, strict=True)) if figures else (0.0, 0.0)
    claimed *= max(0.0, 1 - CLAIMED_ERRORS / max(CLAIMED_ERRORS, case.steady.sums.mean().certainty))
    return claimed >= LEAST_CLAIMED and kept < LEAST_KEPT_SHARE * claimed


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
