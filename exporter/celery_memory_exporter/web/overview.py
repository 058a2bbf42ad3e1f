"""What the page shows, as plain values for JSON: a pure function of the snapshot, its diagnosis and
the history.

One task type that leaks in many workers is one suspect here, with the workers that it leaks in: the
workers of a fleet run the same code. Bytes and seconds, as everywhere.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from celery_memory_exporter.common.report import Container
from celery_memory_exporter.common.version import __version__
from celery_memory_exporter.diagnosis import process_growth
from celery_memory_exporter.diagnosis.judge import diagnose
from celery_memory_exporter.diagnosis.told import Told
from celery_memory_exporter.diagnosis.verdict import UNSETTLED, Cleared, Suspect, WorkerVerdict
from celery_memory_exporter.fleet.snapshot import GroupView, QueueView, Snapshot, WorkerView
from celery_memory_exporter.web.rss_history import RssHistory, resident_bytes

#: Growing types, containers and running tasks told of each worker.
MOST_ROWS = 5
#: Workers named with a suspect, worst first; the rest is counted.
MOST_WORKERS = 3


def overview(
    snapshot: Snapshot, history: RssHistory, now: float, told: Told | None = None
) -> dict[str, Any]:
    """``now`` is Unix time; ``told`` is what was said of the workers before."""
    suspects: list[tuple[str, Suspect]] = []
    cleared: list[Cleared] = []
    workers: list[dict[str, Any]] = []
    for group in snapshot.groups:
        diagnosis = diagnose(group.members, told)
        suspects += [(group.broker, each) for each in diagnosis.suspects]
        cleared += diagnosis.cleared
        workers.append(worker_row(group, diagnosis.workers, history))
    return {
        "version": __version__,
        "generated_at": round(now, 3),
        "several_brokers": snapshot.several_brokers,
        "sources": {name: view.up for name, view in sorted(snapshot.sources.items())},
        "suspects": suspect_rows(suspects),
        "cleared": cleared_rows(cleared),
        "workers": workers,
        "queues": [queue_row(queue) for queue in snapshot.queues],
    }


def suspect_rows(suspects: Iterable[tuple[str, Suspect]]) -> list[dict[str, Any]]:
    """One for each task type and class, worst first: the figures of the worker where it leaks most,
    and the sum an hour."""
    alike: dict[tuple[str | None, str, str | None], list[tuple[str, Suspect]]] = {}
    for broker, each in suspects:
        alike.setdefault((each.task, each.growth_class, each.outcome), []).append((broker, each))
    rows = []
    for group in alike.values():
        group.sort(
            key=lambda each: (-each[1].retained_bytes_per_hour, -each[1].retained_count_per_run)
        )
        row = dataclasses.asdict(group[0][1])
        del row["worker"]
        row["retained_bytes_per_hour"] = round(
            sum(each.retained_bytes_per_hour for _, each in group), 1
        )
        row["since"] = min((each.since for _, each in group if each.since), default=None)
        named = dict.fromkeys((broker, each.worker) for broker, each in group)
        row["worker_count"] = len(named)
        row["workers"] = [
            {"broker": broker, "nodename": name} for broker, name in list(named)[:MOST_WORKERS]
        ]
        rows.append(row)
    rows.sort(
        key=lambda row: (
            -row["retained_bytes_per_hour"],
            -row["retained_count_per_run"],
            row["task"] or "",
        )
    )
    return rows


def cleared_rows(cleared: Iterable[Cleared]) -> list[dict[str, Any]]:
    """One for each task type and what was said of it; those that are not judged yet come last."""
    alike: dict[tuple[str, str, str], list[Cleared]] = {}
    for each in cleared:
        alike.setdefault((each.task, each.growth_class, each.reason), []).append(each)
    rows = [
        {
            "task": task,
            "growth_class": growth_class,
            "reason": reason,
            "advice": group[0].advice,
            "worker_count": len({each.worker for each in group}),
            "runs": sum(each.runs for each in group),
            "audited_runs": sum(each.audited_runs for each in group),
            "known_in_seconds": min(
                (each.known_in_seconds for each in group if each.known_in_seconds is not None),
                default=None,
            ),
        }
        for (task, growth_class, reason), group in sorted(alike.items())
    ]
    return sorted(rows, key=lambda row: row["growth_class"] == UNSETTLED)


def worker_row(
    group: GroupView, verdicts: Sequence[WorkerVerdict], history: RssHistory
) -> dict[str, Any]:
    """A worker, or the members of a group as one: sums, and of what cannot be added up the
    worst."""
    members = group.members
    return {
        **state(group),
        **judgement(verdicts),
        **memory(group, verdicts, history),
        "processes": [
            process_row(member, number)
            for member in members
            for number in range(len(member.processes))
        ],
        "object_types": growing_types(members),
        "containers": growing_containers(members),
        "running": running_tasks(members),
    }


def state(group: GroupView) -> dict[str, Any]:
    members = group.members
    ages = [round(each.age_seconds, 1) for each in members if each.age_seconds is not None]
    return {
        "nodename": group.nodename,
        "broker": group.broker,
        "members": len(members),
        "up": any(each.up for each in members),
        "age_seconds": min(ages, default=None),
        "pool": members[0].pool,
        "concurrency": total(each.concurrency for each in members),
        "active_tasks": total(each.active_tasks for each in members),
        "prefetched_tasks": total(each.prefetched_tasks for each in members),
    }


def judgement(verdicts: Sequence[WorkerVerdict]) -> dict[str, Any]:
    """Only workers with an agent have a verdict; a leaking member's class is the group's."""
    leaking_first = sorted(verdicts, key=lambda each: not each.leaking)
    return {
        "agent": bool(verdicts),
        "growth_class": next((each.growth_class for each in leaking_first), None),
        "leaking": any(each.leaking for each in verdicts),
        "retained_bytes_per_hour": round(sum(each.retained_bytes_per_hour for each in verdicts), 1),
    }


def memory(
    group: GroupView, verdicts: Sequence[WorkerVerdict], history: RssHistory
) -> dict[str, Any]:
    step, points = history.of((group.broker, group.nodename))
    left = [each.seconds_to_limit for each in verdicts if each.seconds_to_limit is not None]
    return {
        "rss_bytes": resident_bytes(group),
        "limit_bytes": total(process_growth.headroom(each)[1] for each in group.members),
        "seconds_to_limit": min(left, default=None),
        "rss_history": {"step_seconds": step, "bytes": points},
    }


def total(values: Iterable[int | None]) -> int | None:
    """The sum of those that are known; ``None`` when none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def process_row(worker: WorkerView, number: int) -> dict[str, Any]:
    figures = worker.processes[number].figures
    return {
        "process": figures.process,
        "pid": figures.pid,
        "rss_bytes": figures.rss_bytes,
        "peak_rss_bytes": figures.peak_rss_bytes,
        "open_fds": figures.open_fds,
        "threads": figures.threads,
    }


def growing_types(members: Iterable[WorkerView]) -> list[dict[str, Any]]:
    """The types of which there are most new objects, in all processes."""
    growth: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for worker in members:
        for each in worker.report.objects if worker.report is not None and worker.live else ():
            growth[each.type] += each.growth
            count[each.type] += each.count
    return [
        {"type": name, "count": count[name], "growth": grown}
        for name, grown in growth.most_common(MOST_ROWS)
        if grown > 0
    ]


def growing_containers(members: Iterable[WorkerView]) -> list[dict[str, Any]]:
    containers: list[Container] = []
    for worker in members:
        containers += worker.report.containers if worker.report is not None and worker.live else ()
    containers.sort(key=lambda each: -each.growth)
    return [dataclasses.asdict(each) for each in containers[:MOST_ROWS]]


def running_tasks(members: Iterable[WorkerView]) -> list[dict[str, Any]]:
    """The longest running first."""
    running = sorted(
        (each for worker in members for each in worker.running),
        key=lambda each: -each.oldest_seconds,
    )
    return [dataclasses.asdict(each) for each in running[:MOST_ROWS]]


def queue_row(queue: QueueView) -> dict[str, Any]:
    reading = queue.reading
    return {
        "broker": queue.broker,
        "name": reading.name,
        "length": reading.length,
        "oldest_seconds": reading.oldest_seconds,
        "consumers": reading.consumers,
        "workers": queue.workers,
        "processes": queue.processes,
    }
