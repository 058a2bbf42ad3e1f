"""Growth of whole processes: what no task type explains, and what the worker as a whole is heading
for.

Rests on each process's history: points spread over its life. A floor that rises from quarter to
quarter is growth; a peak that comes and goes is not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from celery_memory_exporter.common.evidence import Holder
from celery_memory_exporter.common.report import HISTORY, ProcessReport
from celery_memory_exporter.diagnosis import advice
from celery_memory_exporter.diagnosis.verdict import UNSETTLED, Suspect, WorkerVerdict
from celery_memory_exporter.fleet.snapshot import WorkerView

MIB = 1024 * 1024
LEAST_POINTS = 8
#: Growth of the main process's live memory: bytes, and share of what there was before.
LEAST_MAIN_BYTES, LEAST_SHARE = 8 * MIB, 0.2
#: What grows without a container that holds it is looked at for longer: large messages that are
#: prefetched take some megabytes each. A container that grows by so many items holds it.
LEAST_MAIN_SECONDS, LEAST_HELD_ITEMS = 180.0, 100
#: Growth of a child's, which has its tasks for an explanation: so it is looked at for longer.
LEAST_CHILD_BYTES, LEAST_CHILD_SECONDS = 16 * MIB, 600.0
#: Where Celery keeps requests that wait in the main process; so many explain its growth.
LEAST_REQUESTS = 1_000
REQUESTS = "celery.worker.state.requests"


def series(process: ProcessReport, figure: str) -> list[float]:
    """One figure of its history, oldest first."""
    column = HISTORY.index(figure)
    return [point[column] for point in process.history]


def floors(values: list[float]) -> list[float]:
    """The lowest value of each quarter."""
    quarter = len(values) / 4
    return [min(values[round(part * quarter) : round((part + 1) * quarter)]) for part in range(4)]


def quarters(process: ProcessReport, figure: str) -> list[float]:
    """The floors of one figure of its history; zeros where there are too few points."""
    values = series(process, figure)
    return floors(values) if len(values) >= LEAST_POINTS else [0.0] * 4


def rise(process: ProcessReport, figure: str) -> float:
    """From the first quarter's floor to the last one's; 0 unless it rose from each quarter to the
    next."""
    low = quarters(process, figure)
    step = 0.05 * (low[3] - low[0])
    return (
        low[3] - low[0]
        if all(later - earlier > step for earlier, later in itertools.pairwise(low))
        else 0.0
    )


def gain(process: ProcessReport, figure: str) -> float:
    """From the first quarter's floor to the last one's, whatever it did in between; never below 0,
    which is what it is where there are too few points."""
    low = quarters(process, figure)
    return max(0.0, low[3] - low[0])


def kept_of_claimed(process: ProcessReport) -> tuple[float, float]:
    """By how much its live memory rose from the first quarter of its history to the last one, and
    what its runs are said to have left behind meanwhile. Bytes; nothing where that is not known."""
    if len(process.retained_history) < LEAST_POINTS:
        return 0.0, 0.0
    claimed = floors(process.retained_history)
    return gain(process, "live_bytes"), max(0.0, claimed[3] - claimed[0])


def span(process: ProcessReport, figure: str) -> float:
    """From the lowest value of its history to the highest."""
    values = series(process, figure)
    return max(values) - min(values) if values else 0.0


def suspects(worker: WorkerView, named: Iterable[Suspect]) -> list[Suspect]:
    """Processes that grow without a task type that explains it. ``named``: the worker's task types
    that leak."""
    found: list[Suspect] = []
    others = []
    for process in (view.figures for view in worker.processes):
        if (
            process.process == "main"
            and worker.report is not None
            and worker.report.pool == "prefork"
        ):
            found += main_process(worker, process)
        else:
            others.append(process)
    growing = [
        each
        for each in others
        if lived(each) >= LEAST_CHILD_SECONDS and rise(each, "live_bytes") >= LEAST_CHILD_BYTES
    ]
    if growing and not explains(named):
        per_hour = sum(hourly(each, rise(each, "live_bytes")) for each in growing)
        found.append(suspect(worker, growing, per_hour, "python", (), of=len(others)))
    return found


def explains(named: Iterable[Suspect]) -> bool:
    """Whether these task types leave memory behind, by which the processes that run them grow."""
    return any(each.growth_class in ("python", "native", "resident", "garbage") for each in named)


def main_process(worker: WorkerView, process: ProcessReport) -> list[Suspect]:
    """The main process of a prefork pool, which runs no tasks, if it grows: from floor to floor, or
    with requests that wait in it."""
    assert worker.report is not None
    live = series(process, "live_bytes")
    grown = live[-1] - live[0] if live else 0.0
    waiting = [
        each
        for each in worker.report.containers
        if each.path == REQUESTS and each.items >= LEAST_REQUESTS
    ]
    if grown < max(LEAST_MAIN_BYTES, LEAST_SHARE * live[0] if live else 0.0):
        return []
    held = waiting or [
        each for each in worker.report.main_containers if each.growth >= LEAST_HELD_ITEMS
    ]
    if not waiting and rise(process, "live_bytes") < LEAST_MAIN_BYTES:
        return []
    if not held and lived(process) < LEAST_MAIN_SECONDS:
        return []
    holders = tuple(
        Holder(each.path, each.kind, each.items, each.growth, each.limit) for each in held
    )
    return [suspect(worker, [process], hourly(process, grown), "main", holders, of=1)]


def lived(process: ProcessReport) -> float:
    """Seconds that its history covers."""
    seconds = series(process, "seconds")
    return seconds[-1] - seconds[0] if seconds else 0.0


def hourly(process: ProcessReport, grown: float) -> float:
    return grown * 3600 / max(1.0, lived(process))


def is_waiting(holders: tuple[Holder, ...]) -> bool:
    """Whether it is requests that wait."""
    return any(each.path == REQUESTS for each in holders[:1])


def suspect(
    worker: WorkerView,
    growing: list[ProcessReport],
    per_hour: float,
    growth_class: str,
    holders: tuple[Holder, ...],
    *,
    of: int,
) -> Suspect:
    """One suspect for all processes that grow, ``of`` so many."""
    return Suspect(
        worker=worker.nodename,
        task=None,
        growth_class=growth_class,
        growth_classes=(growth_class,),
        retained_bytes_per_run=0.0,
        retained_bytes_per_hour=round(per_hour, 1),
        retained_count_per_run=0.0,
        runs=0,
        audited_runs=0,
        confidence=0.8,
        processes=of,
        growing_processes=len(growing),
        advice=advice.for_process(
            growth_class, holders[0].path if holders else "", waits=is_waiting(holders)
        ),
        process=", ".join(each.process for each in growing),
        holders=holders,
    )


def of_worker(worker: WorkerView, found: list[Suspect], *, known: bool) -> WorkerVerdict:
    """How the worker as a whole is doing. ``found``: all that leaks in it; ``known``: whether each
    of its task types is known not to leak."""
    per_hour = sum(each.retained_bytes_per_hour for each in found)
    used, limit, of_children = headroom(worker)
    towards_limit = sum(
        each.retained_bytes_per_hour
        for each in found
        if not of_children or each.growth_class != "main"
    )
    left = (
        (limit - used) * 3600 / towards_limit
        if used is not None and limit is not None and towards_limit > 0
        else None
    )
    kept = any(allocator_keeps(view.figures) for view in worker.processes)
    unblamed = "allocator" if kept else "steady" if known else UNSETTLED
    growth_class = found[0].growth_class if found else unblamed
    return WorkerVerdict(
        worker=worker.nodename,
        leaking=bool(found),
        retained_bytes_per_hour=round(per_hour, 1),
        rss_bytes=sum(view.figures.rss_bytes or 0 for view in worker.processes) or None,
        limit_bytes=limit,
        seconds_to_limit=round(max(0.0, left)) if left is not None else None,
        growth_class=growth_class,
        advice=found[0].advice if found else advice.NO_LEAK[growth_class],
    )


class Headroom(NamedTuple):
    """Memory in use, its limit, and whether both are the pool's children's rather than the
    cgroup's. Bytes."""

    used: float | None
    limit: int | None
    of_children: bool


def headroom(worker: WorkerView) -> Headroom:
    """The pool's limit for all children if there is one; else the cgroup's."""
    report = worker.report
    children = [
        view.figures.rss_bytes or 0 for view in worker.processes if view.figures.process != "main"
    ]
    if report is not None and report.child_memory_limit_bytes and children:
        return Headroom(float(sum(children)), report.child_memory_limit_bytes * len(children), True)
    cgroup = worker.cgroup
    used = cgroup.working_set_bytes if cgroup.working_set_bytes is not None else cgroup.usage_bytes
    return Headroom(used, cgroup.limit_bytes, of_children=False)


def rises_unexplained(process: ProcessReport) -> bool:
    """Whether anonymous memory rises, and live memory and what the C heap keeps do not."""
    grown = rise(process, "anon_bytes")
    return grown >= LEAST_MAIN_BYTES and unexplained(process) > grown / 2


def unexplained(process: ProcessReport) -> float:
    """Bytes by which anonymous memory rose that live memory and what the C heap keeps do not
    explain."""
    known = gain(process, "live_bytes") + gain(process, "free_bytes")
    return rise(process, "anon_bytes") - known


def allocator_keeps(process: ProcessReport) -> bool:
    """Anonymous memory rose, live memory did not, and the C heap holds it unused."""
    anon, live, free = (
        series(process, figure) for figure in ("anon_bytes", "live_bytes", "free_bytes")
    )
    if len(anon) < LEAST_POINTS:
        return False
    grown = min(anon[len(anon) // 2 :]) - anon[0]
    return (
        grown >= LEAST_CHILD_BYTES
        and live[-1] - live[0] < grown / 4
        and free[-1] - free[0] > grown / 2
    )
