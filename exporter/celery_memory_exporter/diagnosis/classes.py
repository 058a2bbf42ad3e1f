"""What grows with a task type's runs: Python's objects, the C heap, what the kernel counts, shared
memory, garbage, and resident memory that no heap explains."""

from __future__ import annotations

from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Fill
from celery_memory_exporter.common.left_behind import LEAST_BYTES, VERDICT, LeftBehind
from celery_memory_exporter.diagnosis.filling import keeps_filling, newest_age
from celery_memory_exporter.diagnosis.going_on import (
    LEAST_LATE_AUDITS,
    counts_go_on,
    goes_on,
    steps_go_on,
)
from celery_memory_exporter.diagnosis.process_growth import rise
from celery_memory_exporter.diagnosis.profile import window
from celery_memory_exporter.diagnosis.rules import (
    CLASS_OF_COUNT,
    SHORT_WARM,
    Case,
    absent,
    contradicted,
    fills_of,
    gains_surely,
    garbage_aside,
    leaks_in_steps,
    leaks_steadily,
    refuted,
    stands,
    survivors_per_run,
)
from celery_memory_exporter.diagnosis.unexplained import resident_per_run

#: Items a run by least squares, from which on a container grows.
LEAST_ITEMS = 0.02
#: Where runs overlap, each leaves garbage of Celery's own to the next full collection, with gevent
#: 3 KB: what is less than this tells of a leak only where a container holds it.
OWN_GARBAGE_BYTES = 8192.0
#: Objects, or blocks, that outlive a run: with fewer, it is the C heap that grows.
LEAST_SURVIVORS = 0.5
#: Of what a run leaves behind, where lines took more from the C heap than Python allocated: then it
#: is the heap that grows.
MOST = 0.75
#: Shared memory rises in so many of the type's own audited runs, and in so few of another type's.
OWN_SHARE, OTHERS_SHARE = 0.5, 0.25
#: The class that tells most comes first.
ORDER = ("threads", "processes", "descriptors", "shared", "python", "native", "resident", "garbage")


def classes_of(case: Case) -> tuple[str, ...]:
    """All classes of growth that apply, the one that tells most first; empty when there is no
    leak."""
    found = set()
    if leaves_memory(case):
        found.add("python" if is_python(case) else "native")
    elif case.overlapping is not None and fills_a_container(case):
        found.add("python")
    counts = LeftBehind(case.steady.sums, VERDICT).counts
    found |= {
        CLASS_OF_COUNT[each]
        for each in counts
        if counts_go_on(case.steady, each) and not refuted(case, each)
    }
    if leaves_shared_memory(case):
        found.add("shared")
    if not found and collects_nothing(case):
        found.add("garbage")
    if not found and resident_per_run(case):
        found.add("resident")
    return tuple(each for each in ORDER if each in found)


def leaves_memory(case: Case) -> bool:
    """By least squares where runs share their process; else by audits, or for much in few runs by
    all readings, or by what a container holds."""
    if absent(case):
        return False
    if case.overlapping is not None:
        above_zero = stands(case.overlapping, LEAST_BYTES) and not contradicted(case)
        more = case.bytes_per_run >= OWN_GARBAGE_BYTES or fills_a_container(case)
        return above_zero and more and garbage_aside(case)
    steady, whole = case.steady, window(case.evidence.profile, SHORT_WARM)
    fills = fills_of(case)
    filling = [fill for fill in fills if keeps_filling(fill)]
    if filling:
        steadily = leaks_steadily(steady) or any(gains_surely(case, fill) for fill in filling)
    else:
        steadily = (
            leaks_steadily(steady)
            and goes_on(steady)
            and all(goes_on_since(case, fill) for fill in fills)
        )
    in_steps = (
        leaks_in_steps(whole)
        and steps_go_on(whole)
        and (whole.sums.audited > 0 or grows_for_good(case))
        and (bool(filling) or all(goes_on_since(case, fill) for fill in fills))
    )
    return steadily or in_steps


def fills_a_container(case: Case) -> bool:
    """Whether a container grows with the type's runs, by least squares."""
    return any(stands(holder.share, LEAST_ITEMS) for holder in case.evidence.holders)


def goes_on_since(case: Case, full: Fill) -> bool:
    """Whether runs surely leave something behind since a container that took it has filled."""
    newest = newest_age(full)
    since = (
        window(case.evidence.profile, AGES[AGES.index(WARM_RUNS) + newest])
        if newest is not None
        else case.steady
    )
    enough = since.sums.audited >= LEAST_LATE_AUDITS
    return enough and since.sums.mean().certainty >= VERDICT.certainty


def grows_for_good(case: Case) -> bool:
    """Whether a process's live memory rises from floor to floor: without audits, each run's garbage
    looks as if it stayed."""
    return any(
        rise(each.figures, "live_bytes") >= VERDICT.large_total for each in case.worker.processes
    )


def is_python(case: Case) -> bool:
    """Python's memory rather than the C heap's: containers, survivors, blocks, or what tracemalloc
    saw."""
    evidence, steady = case.evidence, case.steady.sums
    if evidence.holders or not steady.audited:
        return True
    traced, watched = (
        sum(evidence.per_run(s) for s in evidence.sites if s.figure == figure)
        for figure in ("bytes", "native")
    )
    if watched > traced and steady.per_audit("native") > MOST * case.bytes_per_run:
        return False  # a few objects that hold much of it
    survivors = sum(survivors_per_run(evidence).values())
    return (
        survivors >= LEAST_SURVIVORS
        or steady.per_audit("blocks") >= LEAST_SURVIVORS
        or traced >= case.bytes_per_run / 2
    )


def leaves_shared_memory(case: Case) -> bool:
    """Files in tmpfs, which all write to: where they rise in most audited runs of this type alone,
    or by least squares over the worker and within audited runs; shared maps by audits."""
    per_run, tmpfs = LeftBehind(case.steady.sums, VERDICT).shared, case.evidence.tmpfs
    if not per_run or not counts_go_on(case.steady, "shared"):
        return False
    mapped = sum(process.figures.shmem_bytes or 0 for process in case.worker.processes)
    by_squares = (
        tmpfs is not None and stands(tmpfs, VERDICT.shared_bytes) and per_run >= tmpfs.per_run / 2
    )
    # A map that somebody else's runs leave is not this type's, whose own part would be all but
    # nothing of it.
    left = per_run * case.steady.sums.runs
    return by_squares or left / 2 <= mapped <= 10 * left or rises_here(case)


def rises_here(case: Case) -> bool:
    """Whether shared memory rises in most audited runs, and in few of another task type's: then
    nobody else writes all the time."""
    tasks = case.worker.report.tasks if case.worker.report else []
    others = [
        window(task.evidence.profile, 0).sums
        for task in tasks
        if task.name != case.task.name and task.evidence is not None
    ]
    shares = [
        other.per_audit("shared_rises") for other in others if other.audited >= VERDICT.audits
    ]
    return (
        case.steady.sums.per_audit("shared_rises") >= OWN_SHARE
        and min(shares, default=1.0) <= OTHERS_SHARE
    )


def collects_nothing(case: Case) -> bool:
    """Whether cycles stay because the application turned the collector off."""
    prefork = case.worker.report is not None and case.worker.report.pool == "prefork"
    running = [
        each.figures
        for each in case.worker.processes
        if not prefork or each.figures.process != "main"
    ]
    if all(figures.gc_enabled != 0 for figures in running):
        return False
    steady = case.steady.sums
    garbage = steady.per_audit("garbage_blocks") + steady.per_audit("garbage_native")
    return steady.audited >= VERDICT.audits and garbage >= 1.0
