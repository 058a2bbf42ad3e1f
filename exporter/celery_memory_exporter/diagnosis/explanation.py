"""The verdict on one task type in words and figures: who leaks, by how much, what is left behind,
who holds it; or why not."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import NamedTuple

from celery_memory_exporter.common.evidence import Evidence
from celery_memory_exporter.common.left_behind import LEAST_BYTES, LEAST_COUNT, VERDICT
from celery_memory_exporter.common.report import ProcessReport
from celery_memory_exporter.diagnosis import advice
from celery_memory_exporter.diagnosis.innocence import (
    audits_missing,
    leaves_nothing,
    shares_nothing,
)
from celery_memory_exporter.diagnosis.process_growth import allocator_keeps, rises_unexplained
from celery_memory_exporter.diagnosis.profile import stretch, window
from celery_memory_exporter.diagnosis.rules import (
    CLASS_OF_COUNT,
    SHORT_WARM,
    Case,
    absent,
    garbage_aside,
    leaks_in_steps,
    leaks_steadily,
    stands,
    survivors_per_run,
)
from celery_memory_exporter.diagnosis.unexplained import hidden, resident_per_run
from celery_memory_exporter.diagnosis.verdict import (
    UNSETTLED,
    Cleared,
    ObjectRate,
    SiteRate,
    Suspect,
)
from celery_memory_exporter.diagnosis.waiting import seconds_until_known

#: Resident memory that stays while live memory does not: from so much on, it is worth a word.
LEAST_KEPT_BYTES = 8 * 1024 * 1024.0
MOST_NAMES = 5
#: Types that any code leaves behind.
MACHINERY = frozenset(
    {"cell", "function", "method", "builtin_function_or_method", "frame", "traceback", "generator"}
    | {"coroutine", "weakref.ReferenceType", "weakref.ProxyType", "weakref.KeyedRef", "code"}
    | {"method-wrapper", "wrapper_descriptor", "getset_descriptor", "property", "mappingproxy"}
)
#: What is said of that which does not leak, by what it looks like.
LOOKS = {
    "allocator": "resident memory rose, live memory did not",
    "garbage": "reference cycles, freed by the collector",
    "bounded": "it grew past start-up, and stopped",
    "warm-up": "it grew in its first runs only",
    "steady": "its runs leave nothing behind",
}


def accuse(case: Case, classes: tuple[str, ...]) -> Suspect:
    """The suspect, with all that is known of what it leaves behind."""
    task, evidence = case.task, case.evidence
    first = classes[0]
    per_run, seen = bytes_of(case, first), seen_in(case, first)
    # A bounded one beside an unbounded one is not what leaks.
    holders = tuple(sorted(evidence.holders, key=lambda each: each.limit is not None)[:MOST_NAMES])
    outcome = "failed" if first in ("python", "native") and only_failing(case) else None
    column = next((name for name, counted in CLASS_OF_COUNT.items() if counted == first), "")
    suspect = Suspect(
        worker=case.worker.nodename,
        task=task.name,
        growth_class=first,
        growth_classes=classes,
        retained_bytes_per_run=round(per_run, 1),
        retained_bytes_per_hour=round(per_run * case.runs * 3600 / max(1.0, evidence.seconds), 1),
        retained_count_per_run=round(case.steady.sums.per_audit(column), 2) if column else 0.0,
        runs=case.runs,
        audited_runs=task.audited_runs,
        confidence=confidence(case, first),
        processes=round(seen.of),
        growing_processes=round(seen.growing),
        advice="",
        outcome=outcome,
        object_types=rates_of(case),
        sites=sites_of(case),
        holders=holders,
        paths=tuple(evidence.paths),
    )
    return dataclasses.replace(suspect, advice=advice.for_suspect(suspect))


def bytes_of(case: Case, growth_class: str) -> float:
    """Bytes that a run leaves behind, of what this class counts."""
    if growth_class == "shared":
        estimate = case.evidence.tmpfs
        if estimate and stands(estimate, VERDICT.shared_bytes):
            return estimate.per_run
        return case.steady.sums.per_audit("shared")
    if growth_class == "garbage":
        return case.steady.sums.garbage
    # Objects may hold what no heap that can be read has: tables of Arrow, tensors.
    return max(0.0, case.bytes_per_run, resident_per_run(case))


class SeenIn(NamedTuple):
    """Processes that grow, ``of`` so many that could tell."""

    growing: float
    of: float


def seen_in(case: Case, growth_class: str) -> SeenIn:
    if growth_class == "resident":
        return SeenIn(sum(map(rises_unexplained, case.processes)), len(case.processes))
    return SeenIn(case.evidence.growing, case.evidence.processes)


def confidence(case: Case, growth_class: str) -> float:
    """From 0 to 1: how far above zero the mean is, and how many of the processes agree (rule of
    succession)."""
    seen = seen_in(case, growth_class)
    agreement = (seen.growing + 1) / (seen.of + 1)
    return round(min(0.99, (1 - 1 / (1 + case.certainty**2)) * min(1.0, agreement)), 2)


def only_failing(case: Case) -> bool:
    """Whether successful runs leave nothing behind."""
    failed = case.evidence.failed_audits
    whole = window(case.evidence.profile, SHORT_WARM).sums
    enough = failed >= 5 and whole.audited - failed >= 5
    succeeded_bytes = whole.size - case.evidence.failed_bytes
    return enough and whole.size > 0 and succeeded_bytes < 0.1 * whole.size


def rates_of(case: Case) -> tuple[ObjectRate, ...]:
    """By audited runs; where runs overlap, by what the worker's census counts."""
    report = case.worker.report
    if case.overlapping is None or report is None:
        return object_rates(case.evidence)
    growth = {each.type: each.growth / max(1, case.runs) for each in report.objects}
    return ranked(growth, LEAST_COUNT)


def object_rates(evidence: Evidence) -> tuple[ObjectRate, ...]:
    return ranked(survivors_per_run(evidence), 0.01)


def ranked(per_run: dict[str, float], least: float) -> tuple[ObjectRate, ...]:
    """What tells most first; without those below ``least`` a run."""
    rates = [ObjectRate(name, round(rate, 2)) for name, rate in per_run.items()]
    rates.sort(key=lambda rate: (tells_less(rate.type), -rate.per_run))
    return tuple([rate for rate in rates if rate.per_run >= least][:MOST_NAMES])


def tells_less(name: str) -> int:
    """How little a type says of who made its objects: an application's or a library's class less so
    than the standard library's, these than what they are made of, and these than what the
    interpreter makes of functions and calls."""
    if name in MACHINERY:
        return 3
    if "." not in name:
        return 2
    return int(name.split(".", 1)[0] in sys.stdlib_module_names)


def sites_of(case: Case) -> tuple[SiteRate, ...]:
    """Lines of Python's memory first, without those that made next to none of it."""
    sites = sorted(case.evidence.sites, key=lambda site: (site.figure != "bytes", -site.amount))
    least = 0.02 * sum(site.amount for site in sites if site.figure == "bytes")
    return tuple(
        [
            SiteRate(site.site, round(case.evidence.per_run(site), 1), site.figure)
            for site in sites
            if site.amount > least or site.figure != "bytes"
        ]
    )[:MOST_NAMES]


def clear_by_class(case: Case) -> Cleared:
    """No leak, with what it looked like instead; or not known yet, where what would tell is
    missing: that nothing was seen shows nothing."""
    if absent(case):
        reason = "what its runs seem to leave behind is not in its processes' memory"
        return clear(case, UNSETTLED, reason, contradicted=True)
    unknown = what_audits_miss(case) if case.overlapping is None else what_squares_miss(case)
    if unknown:
        return clear(case, UNSETTLED, unknown)
    if keeps_memory(case) and any_process(case, rises_unexplained):
        reason = "resident memory rises, and no heap that can be read explains it"
        return clear(case, UNSETTLED, reason, contradicted=True)
    looks = looks_like(case)
    return clear(case, looks, LOOKS[looks])


def what_audits_miss(case: Case) -> str:
    missing = audits_missing(case)
    if missing:
        return "its later runs have {:.0f} of {:.0f} audits yet".format(*missing)
    if hidden(case):
        return "native memory cannot be read here, and resident memory may rise"
    if not leaves_nothing(case.steady):
        return "some later runs left something behind, too few to tell a leak from chance"
    return ""


def what_squares_miss(case: Case) -> str:
    """Where runs overlap in one process."""
    assert case.overlapping is not None
    if stands(case.overlapping, LEAST_BYTES) and not garbage_aside(case):
        return "what it leaves behind may be garbage that waits for a full collection"
    if not shares_nothing(case.overlapping):
        return "what overlapping runs leave behind cannot be told from chance yet"
    return ""


def looks_like(case: Case) -> str:
    """The class of what is no leak."""
    early = stretch(case.evidence.profile, range(case.steady.ages.start)).sums.mean()
    if keeps_memory(case) and any_process(case, allocator_keeps):
        return "allocator"
    if case.steady.sums.garbage >= 1024:
        return "garbage"
    if leaks_steadily(case.steady) or leaks_in_steps(case.steady):
        return "bounded"
    return "warm-up" if early.runs and early.total >= 64 * 1024 else "steady"


def keeps_memory(case: Case) -> bool:
    """Whether resident memory stays that its runs' live memory does not explain."""
    kept = case.task.growth_bytes - case.task.release_bytes
    return kept >= LEAST_KEPT_BYTES and case.bytes_per_run * case.runs < kept / 4


def any_process(case: Case, does: Callable[[ProcessReport], bool]) -> bool:
    return any(does(view.figures) for view in case.worker.processes)


def clear(case: Case, growth_class: str, reason: str, *, contradicted: bool = False) -> Cleared:
    """``contradicted``: evidence speaks against a leak, though not all is known."""
    return Cleared(
        worker=case.worker.nodename,
        task=case.task.name,
        growth_class=growth_class,
        reason=reason,
        retained_bytes_per_run=round(case.bytes_per_run, 1),
        runs=case.runs,
        audited_runs=case.task.audited_runs,
        advice=advice.NO_LEAK[growth_class],
        known_in_seconds=seconds_until_known(case) if growth_class == UNSETTLED else None,
        contradicted=contradicted,
    )
