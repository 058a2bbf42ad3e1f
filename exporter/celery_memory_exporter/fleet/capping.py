"""A report within the exporter's own caps: an agent may have others, and a sender may be no agent
at all.

What is beyond a cap is summed under ``other`` where a sum makes sense, left out where it does not,
and counted either way.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest

from celery_memory_exporter.common.codec import MAX_LIST_ITEMS
from celery_memory_exporter.common.names import OTHER
from celery_memory_exporter.common.report import (
    EXIT_REASONS,
    Container,
    Evidence,
    Histogram,
    Holder,
    LostRuns,
    ObjectCount,
    Profile,
    Running,
    Site,
    TaskReport,
    Traffic,
    WorkerReport,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps, each per worker unless it says otherwise."""

    #: In the whole fleet.
    workers: int = 1_000
    tasks: int = 200
    object_types: int = 20
    exceptions: int = 50
    #: Per task type, and containers per worker.
    sites: int = 10
    containers: int = 10
    label_length: int = 120
    #: Per broker.
    queues: int = 200
    #: In the whole fleet: hostnames of clients that send tasks, where they are told apart.
    senders: int = 100
    #: In the whole fleet: of workers without an agent, what is remembered of tasks that are not
    #: finished.
    tasks_in_flight: int = 50_000


@dataclass(slots=True)
class Admitted:
    """Task names so far, first come, first served, so that a counter once shown stays shown.
    Messages may have names of their own (``shadow``), without end."""

    tasks: set[str] = field(default_factory=set)
    traffic: set[str] = field(default_factory=set)


def bounded(
    report: WorkerReport, admitted: Admitted, limits: Limits
) -> tuple[WorkerReport, Counter[str]]:
    """The report as it may be shown, and per family how much of it may not. ``admitted`` is the
    worker's, and takes new names."""
    dropped: Counter[str] = Counter()
    length = limits.label_length

    def admit(name: str, names: set[str], family: str) -> str:
        name = name[:length]
        if name not in names and len(names) >= limits.tasks:
            dropped[family] += 1
            return OTHER
        names.add(name)
        return name

    def admit_task(name: str) -> str:
        return admit(name, admitted.tasks, "celery_task_memory_delta_bytes")

    def admit_traffic(name: str) -> str:
        return admit(name, admitted.traffic, "celery_task_received_total")

    grouped: dict[tuple[str, str], list[TaskReport]] = {}
    for task in report.tasks:
        grouped.setdefault((admit_task(task.name), task.queue[:length]), []).append(task)
    traffic: dict[tuple[str, str], list[Traffic]] = {}
    for row in report.traffic:
        traffic.setdefault((admit_traffic(row.name), row.queue[:length]), []).append(row)
    lost: Counter[tuple[str, str]] = Counter()
    for each in report.lost:
        lost[admit_task(each.name), each.reason if each.reason in EXIT_REASONS else OTHER] += (
            each.count
        )
    objects: dict[str, ObjectCount] = {}
    for counted in report.objects[: limits.object_types]:
        kind = counted.type[:length]
        before = objects.get(kind, ObjectCount(kind, 0, 0))
        objects[kind] = ObjectCount(
            kind, before.count + counted.count, before.growth + counted.growth
        )
    dropped["celery_worker_objects"] += max(0, len(report.objects) - limits.object_types)
    containers: dict[str, Container] = {}
    for each_container in report.containers[: limits.containers]:
        path = each_container.path[:length]
        known = containers.get(path, Container(path, each_container.kind, 0, 0))
        items, grown = known.items + each_container.items, known.growth + each_container.growth
        containers[path] = dataclasses.replace(each_container, path=path, items=items, growth=grown)
    dropped["celery_worker_container_items"] += max(0, len(report.containers) - limits.containers)
    return (
        dataclasses.replace(
            report,
            tasks=[
                merge_tasks(name, queue, parts, limits) for (name, queue), parts in grouped.items()
            ],
            lost=[LostRuns(name, reason, count) for (name, reason), count in lost.items()],
            objects=list(objects.values()),
            traffic=[
                merge_traffic(name, queue, rows, limits) for (name, queue), rows in traffic.items()
            ],
            queues=list(dict.fromkeys(queue for queue in report.queues if len(queue) <= length))[
                : limits.queues
            ],
            running=merge_running(
                [
                    dataclasses.replace(each, name=admit_traffic(each.name))
                    for each in report.running
                ]
            ),
            containers=list(containers.values()),
            children_exited=known_reasons(report.children_exited),
        ),
        +dropped,
    )


def known_reasons(counts: dict[str, int]) -> dict[str, int]:
    """A newer agent, or a sender that is none, may have others."""
    known: Counter[str] = Counter()
    for reason, count in counts.items():
        known[reason if reason in EXIT_REASONS else OTHER] += count
    return dict(known)


def merge_tasks(name: str, queue: str, parts: list[TaskReport], limits: Limits) -> TaskReport:
    """The sum of several task types' figures, under one name."""
    evidence = merge_evidence(
        [part.evidence for part in parts if part.evidence is not None], limits
    )
    if len(parts) == 1:
        return dataclasses.replace(parts[0], name=name, queue=queue, evidence=evidence)
    runs: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for part in parts:
        runs.update(part.runs)
        seconds.update(part.seconds)
    natives = [
        part.retained_native_bytes for part in parts if part.retained_native_bytes is not None
    ]
    peaks = [part.peak for part in parts if part.peak is not None]
    return TaskReport(
        name=name,
        queue=queue,
        runs=dict(runs),
        seconds=dict(seconds),
        delta=merge_histograms([part.delta for part in parts]),
        growth_bytes=sum(part.growth_bytes for part in parts),
        release_bytes=sum(part.release_bytes for part in parts),
        peak=merge_histograms(peaks) if peaks else None,
        retained_blocks=sum(part.retained_blocks for part in parts),
        retained_native_bytes=sum(natives) if natives else None,
        retained_runs=sum(part.retained_runs for part in parts),
        audited_runs=sum(part.audited_runs for part in parts),
        evidence=evidence,
    )


def merge_running(parts: list[Running]) -> list[Running]:
    merged: dict[str, Running] = {}
    for part in parts:
        before = merged.get(part.name, Running(part.name, 0, 0.0))
        merged[part.name] = Running(
            part.name, before.count + part.count, max(before.oldest_seconds, part.oldest_seconds)
        )
    return list(merged.values())


def merge_traffic(name: str, queue: str, parts: list[Traffic], limits: Limits) -> Traffic:
    """The sum of several rows, under one name."""
    failed: Counter[str] = Counter()
    for part in parts:
        for exception, count in part.failed.items():
            label = exception[: limits.label_length]
            failed[label if label in failed or len(failed) < limits.exceptions else OTHER] += count
    return Traffic(
        name=name,
        queue=queue,
        received=sum(part.received for part in parts),
        started=sum(part.started for part in parts),
        succeeded=sum(part.succeeded for part in parts),
        failed=dict(failed),
        retried=sum(part.retried for part in parts),
        rejected=sum(part.rejected for part in parts),
        revoked=sum(part.revoked for part in parts),
        runtime=merge_histograms([part.runtime for part in parts]),
        queue_wait=merge_histograms([part.queue_wait for part in parts]),
    )


def merge_evidence(parts: list[Evidence], limits: Limits) -> Evidence | None:
    """What several queues' runs of a task type, or several types under ``other``, tell together."""
    if not parts:
        return None
    survivors: Counter[str] = Counter()
    sites: Counter[tuple[str, str]] = Counter()
    holders: dict[str, Holder] = {}
    for part in parts:
        for name, count in part.survivors.items():
            survivors[name[: limits.label_length]] += count
        for site in part.sites:
            sites[site.site[: limits.label_length], site.figure] += site.amount  # type: ignore[assignment]  # a float adds up, too
        for holder in part.holders:
            path = holder.path[: limits.label_length]
            before = holders.get(path)
            # It is the same container: its items are there once, whichever queue the runs came by
            # that made it grow.
            more = (
                (max(holder.items, before.items), holder.growth + before.growth)
                if before
                else (holder.items, holder.growth)
            )
            holders[path] = dataclasses.replace(holder, path=path, items=more[0], growth=more[1])
    most = max(parts, key=lambda part: sum(part.profile.runs))
    return dataclasses.replace(
        most,
        profile=merge_profiles([part.profile for part in parts]),
        processes=max(part.processes for part in parts),
        growing=max(part.growing for part in parts),
        failed_audits=sum(part.failed_audits for part in parts),
        failed_bytes=sum(part.failed_bytes for part in parts),
        seconds=max(part.seconds for part in parts),
        survivors=dict(survivors.most_common(limits.object_types)),
        sites=[
            Site(site, figure, amount) for (site, figure), amount in sites.most_common(limits.sites)
        ],
        deep_audits=sum(part.deep_audits for part in parts),
        traced_audits=sum(part.traced_audits for part in parts),
        watched_audits=sum(part.watched_audits for part in parts),
        holders=sorted(holders.values(), key=lambda holder: -holder.growth)[: limits.containers],
        # Of the queue with most runs: what other queues' runs added meanwhile is in there.
        fills=[
            dataclasses.replace(fill, path=fill.path[: limits.label_length])
            for fill in most.fills[: limits.containers]
        ],
        paths=list(
            dict.fromkeys(path[: limits.label_length] for part in parts for path in part.paths)
        ),
    )


def merge_profiles(parts: list[Profile]) -> Profile:
    """Age by age; a profile ends with the last age that its processes reached."""
    if len(parts) == 1:
        return parts[0]
    columns = [each.name for each in dataclasses.fields(Profile)]
    return Profile(
        **{
            name: [
                sum(values)
                for values in zip_longest(*(getattr(part, name) for part in parts), fillvalue=0.0)
            ]
            for name in columns
        }
    )


def merge_histograms(parts: list[Histogram]) -> Histogram:
    """Bucket by bucket; the parts share their bounds, as all of one report do."""
    return Histogram(
        [sum(counts) for counts in zip(*(part.counts for part in parts), strict=True)],
        sum(p.sum for p in parts),
    )


def by_name(tasks: list[TaskReport]) -> list[TaskReport]:
    """One report per task name, over its queues, by name."""
    grouped: dict[str, list[TaskReport]] = {}
    for task in tasks:
        grouped.setdefault(task.name, []).append(task)
    merged = []
    for name in sorted(grouped):
        first, *more = grouped[name]
        merged.append(
            merge_tasks(name, "", grouped[name], WITHIN)
            if more
            else dataclasses.replace(first, queue="")
        )
    return merged


#: For what is within the caps already.
WITHIN = Limits(
    object_types=MAX_LIST_ITEMS,
    exceptions=MAX_LIST_ITEMS,
    sites=MAX_LIST_ITEMS,
    containers=MAX_LIST_ITEMS,
)
