"""Who leaks? A pure function of the workers, shared by ``/metrics``, the API and ``report``.

A task type is a suspect when what its runs leave behind

* is above zero past start-up (the first ``WARM_RUNS`` in a process): by audited runs and the error
  of their mean, or, for a leak in few runs, by several steps among all measured runs;
* goes on: as much in the later half as in the earlier one, and in the last quarter still. A cache
  that has filled, an import, a pool of connections have stopped by then, so nothing is said before
  a process has seen ``SETTLED`` runs of the type, or several generations of children have seen
  enough together;
* is not held by containers that are bounded, by their type or by the code that takes items out of
  them;
* is seen in at least half of the processes that had runs enough to see it.

RSS decides nothing here: it shows what the allocator keeps, which is told as such and is no leak.
"""

from __future__ import annotations

from collections.abc import Iterable

from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Fill, Holder
from celery_memory_exporter.common.left_behind import LEAST_BYTES, VERDICT
from celery_memory_exporter.common.names import OTHER
from celery_memory_exporter.common.report import TaskReport
from celery_memory_exporter.diagnosis import process_growth
from celery_memory_exporter.diagnosis.classes import classes_of
from celery_memory_exporter.diagnosis.explanation import accuse, clear, clear_by_class
from celery_memory_exporter.diagnosis.filling import keeps_filling, newest_rate, whole_rate
from celery_memory_exporter.diagnosis.going_on import LEAST_LATE_AUDITS
from celery_memory_exporter.diagnosis.profile import stretch
from celery_memory_exporter.diagnosis.rules import (
    CLASS_OF_COUNT,
    LEAST_FILL_RUNS,
    MINOR,
    Case,
    fills_of,
    settled,
    steady_window,
    unmeasured,
)
from celery_memory_exporter.diagnosis.told import Told
from celery_memory_exporter.diagnosis.verdict import (
    UNSETTLED,
    Cleared,
    Diagnosis,
    Suspect,
    WorkerVerdict,
)
from celery_memory_exporter.fleet.snapshot import WorkerView
from celery_memory_exporter.fleet.sums import by_name

#: Of a worker without a memory limit: what takes more than this is no bound that helps anybody.
MOST_BYTES = 16 * 1024.0**3
#: Classes of what each process can see for itself.
BY_PROCESS = frozenset({"python", "native", *CLASS_OF_COUNT.values()})


def diagnose(workers: Iterable[WorkerView], told: Told | None = None) -> Diagnosis:
    """The verdict on those of the workers that live. ``told`` is what was said of them before, by
    which answers are stable, and remembers what is said now; without it each stands alone."""
    suspects: list[Suspect] = []
    cleared: list[Cleared] = []
    judged: list[WorkerVerdict] = []
    for worker in workers:
        if worker.report is None or not worker.live:
            continue
        # What is beyond the caps is no one's: a sum of task types cannot be accused.
        tasks = [each for each in by_name(worker.report.tasks) if each.name != OTHER]
        verdicts = [each for task in tasks if (each := judge(worker, task)) is not None]
        if told is not None:
            verdicts = told.of_tasks(worker, verdicts)
        found = [each for each in verdicts if isinstance(each, Suspect)]
        found += growing_processes(worker, found, told)
        harmless = [each for each in verdicts if isinstance(each, Cleared)]
        known = bool(tasks) and sum(each.settled for each in harmless) == len(tasks)
        judged.append(process_growth.of_worker(worker, found, known=known))
        cleared += harmless
        suspects += found
    suspects.sort(
        key=lambda each: (
            -each.retained_bytes_per_hour,
            -each.retained_count_per_run,
            each.worker,
            each.task or "",
        )
    )
    return Diagnosis(tuple(suspects), tuple(cleared), tuple(judged))


def growing_processes(worker: WorkerView, named: list[Suspect], told: Told | None) -> list[Suspect]:
    """Those that none of the task types explains that are ``named``."""
    growing = process_growth.suspects(worker, named)
    if told is None:
        return growing
    return told.of_processes(worker, growing, explained=process_growth.explains(named))


def judge(worker: WorkerView, task: TaskReport) -> Suspect | Cleared | None:
    """``None`` where there is no agent's evidence."""
    if task.evidence is None:
        return None
    case = Case(worker, task, task.evidence, steady_window(task.evidence))
    if not settled(case):
        unseen = "none of its later runs has been audited yet"
        return clear(case, UNSETTLED, unseen if unmeasured(case) else "too few runs yet")
    classes, holder = classes_of(case), bounded_holder(case)
    if holder is not None and set(classes) <= {"python", "native"}:
        return clear(case, "bounded", f"{holder.path} holds at most {holder.limit} items")
    if not classes:
        return clear_by_class(case)
    if set(classes) <= BY_PROCESS and not seen_by_half(case):
        return clear(case, UNSETTLED, "seen in fewer than half of the processes")
    return accuse(case, classes)


def seen_by_half(case: Case) -> bool:
    """Whether at least half of the processes measured grow, where that can be asked of each. A
    container that goes on filling is seen without asking."""
    evidence = case.evidence
    return (
        case.overlapping is not None
        or evidence.growing >= evidence.processes / 2
        or any(map(keeps_filling, fills_of(case)))
    )


def bounded_holder(case: Case) -> Holder | None:
    """The container that takes what runs leave behind, if it is bounded, and nothing else takes a
    part of it: it is not full yet, but will be before memory is, or since it is nothing more was
    left behind."""
    holders = case.evidence.holders
    if not holders or any(
        each.limit is None and each.growth >= MINOR * holders[0].growth for each in holders
    ):
        return None
    fill = next((each for each in case.evidence.fills if each.path == holders[0].path), None)
    if bytes_when_full(case, holders[0], fill) > memory_of(case.worker):
        return None
    if fill is None or sum(fill.runs) < LEAST_FILL_RUNS or newest_rate(fill) > 0:
        return holders[0]
    return None if leaves_more(case, fill) else holders[0]


def bytes_when_full(case: Case, holder: Holder, fill: Fill | None) -> float:
    """What all processes of the worker will hold in it then, at what an item has taken so far."""
    assert holder.limit is not None
    known = fill is not None and sum(fill.runs) >= LEAST_FILL_RUNS
    rate = whole_rate(fill) if fill is not None and known else 0.0
    per_item = max(0.0, case.bytes_per_run) / (rate if rate > 0 else 1.0)
    return holder.limit * per_item * len(case.processes)


def memory_of(worker: WorkerView) -> float:
    """Bytes that a worker's limit lets it have."""
    limit = process_growth.headroom(worker).limit
    return float(limit) if limit else MOST_BYTES


def leaves_more(case: Case, fill: Fill) -> bool:
    """Whether audited runs surely leave memory behind since the container has gained its last item:
    that a table is made anew now and then is chance."""
    gained = max((age for age, items in enumerate(fill.gains) if items > 0), default=-1)
    profile = case.evidence.profile
    since = stretch(profile, range(AGES.index(WARM_RUNS) + gained + 1, len(profile.runs))).sums
    mean = since.mean()
    sure = mean.per_run >= LEAST_BYTES and mean.certainty >= VERDICT.certainty
    return since.audited >= LEAST_LATE_AUDITS and sure
