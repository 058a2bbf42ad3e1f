"""A report within the exporter's own caps: an agent may have others, and a sender may be no agent at all.

What is beyond a cap is summed under ``other`` where a sum makes sense, left out where it does not, and counted either way.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from celery_memory_exporter.report import Histogram, LostRuns, ObjectCount, TaskReport, WorkerReport

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps, each per worker unless it says otherwise."""

    #: In the whole fleet.
    workers: int = 1_000
    tasks: int = 200
    object_types: int = 20
    exceptions: int = 50
    label_length: int = 120


def bounded(report: WorkerReport, admitted: set[str], limits: Limits) -> tuple[WorkerReport, Counter[str]]:
    """The report as it may be shown, and per family how much of it may not.

    ``admitted`` are the worker's task names so far, and takes the new ones: first come, first served, so that a counter once
    shown stays shown.
    """
    dropped: Counter[str] = Counter()
    length = limits.label_length

    def admit(name: str) -> str:
        name = name[:length]
        if name not in admitted and len(admitted) >= limits.tasks:
            dropped["celery_task_memory_delta_bytes"] += 1
            return OTHER
        admitted.add(name)
        return name

    grouped: dict[tuple[str, str], list[TaskReport]] = {}
    for task in report.tasks:
        grouped.setdefault((admit(task.name), task.queue[:length]), []).append(task)
    lost: Counter[tuple[str, str]] = Counter()
    for each in report.lost:
        lost[admit(each.name), each.reason[:length]] += each.count
    objects: dict[str, ObjectCount] = {}
    for counted in report.objects[: limits.object_types]:
        kind = counted.type[:length]
        before = objects.get(kind, ObjectCount(kind, 0, 0))
        objects[kind] = ObjectCount(kind, before.count + counted.count, before.growth + counted.growth)
    dropped["celery_worker_objects"] += max(0, len(report.objects) - limits.object_types)
    return (
        dataclasses.replace(
            report,
            tasks=[merge_tasks(name, queue, parts, limits) for (name, queue), parts in grouped.items()],
            lost=[LostRuns(name, reason, count) for (name, reason), count in lost.items()],
            objects=list(objects.values()),
        ),
        +dropped,
    )


def merge_tasks(name: str, queue: str, parts: list[TaskReport], limits: Limits) -> TaskReport:
    """The sum of several task types' figures, under one name."""
    if len(parts) == 1 and len(parts[0].exceptions) <= limits.exceptions:
        return dataclasses.replace(parts[0], name=name, queue=queue)
    runs: Counter[str] = Counter()
    exceptions: Counter[str] = Counter()
    for part in parts:
        runs.update(part.runs)
        for exception, count in part.exceptions.items():
            known = exception in exceptions or len(exceptions) < limits.exceptions
            exceptions[exception[: limits.label_length] if known else OTHER] += count
    natives = [part.retained_native_bytes for part in parts if part.retained_native_bytes is not None]
    peaks = [part.peak for part in parts if part.peak is not None]
    return TaskReport(
        name=name,
        queue=queue,
        runs=dict(runs),
        exceptions=dict(exceptions),
        runtime=merge_histograms([part.runtime for part in parts]),
        delta=merge_histograms([part.delta for part in parts]),
        growth_bytes=sum(part.growth_bytes for part in parts),
        release_bytes=sum(part.release_bytes for part in parts),
        peak=merge_histograms(peaks) if peaks else None,
        retained_blocks=sum(part.retained_blocks for part in parts),
        retained_native_bytes=sum(natives) if natives else None,
        retained_runs=sum(part.retained_runs for part in parts),
    )


def merge_histograms(parts: list[Histogram]) -> Histogram:
    """Bucket by bucket; the parts share their bounds, as all of one report do."""
    return Histogram([sum(counts) for counts in zip(*(part.counts for part in parts), strict=True)], sum(p.sum for p in parts))
