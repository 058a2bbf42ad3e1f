"""Workers that come and go, shown as one: what is left of those that went, so that the group's
counters never go back.

The members' samples are added up when they are shown (``metrics.Rows``); here is what must be added
beside those that are still known: the counters of members that were forgotten or restarted. And
what must be taken off: an exporter that starts beside members of long standing would begin with all
that they ever counted. That is less than it showed before its restart, when it knew members that
are gone by now, and ``rate()`` takes what a fallen counter begins with for an increase. So a group
begins at zero.

Only used by the fleet, which has the lock and says what time it is.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import (
    Histogram,
    LostRuns,
    TaskReport,
    Traffic,
    WorkerReport,
)
from celery_memory_exporter.fleet.capping import Admitted, cap_exceptions
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.snapshot import TrafficView, WorkerView
from celery_memory_exporter.fleet.sums import total

#: A member whose first report that we see is none of its first ones was there before us, or before
#: we lost sight of it.
NEW_REPORTS = 2


@dataclass(slots=True)
class Group:
    """One group at one broker."""

    name: str
    broker: str
    #: Shared by its members, so that the caps hold for the group.
    admitted: Admitted = field(default_factory=Admitted)
    report: WorkerReport | None = None
    traffic: TrafficView | None = None
    children_started: int = 0

    def keep(self, view: WorkerView, limits: Limits, *, sign: int = 1) -> None:
        """Adds (or takes off, with ``sign`` -1) a member's counters for good."""
        self.children_started += sign * (view.children_started or 0)
        if view.report is not None:
            told = counters(view.report, sign)
            self.report = told if self.report is None else add_reports(self.report, told)
        if view.traffic is not None:
            told_traffic = dataclasses.replace(
                view.traffic, rows=tuple(signed_traffic(row, sign) for row in view.traffic.rows)
            )
            self.traffic = add_traffic(self.traffic, told_traffic, limits)

    def view(self) -> WorkerView:
        """A member that is gone: counters alone."""
        return WorkerView(
            nodename=self.name,
            broker=self.broker,
            up=False,
            live=False,
            gone=True,
            grouped=True,
            report=self.report,
            traffic=self.traffic,
            processes=(),
            cgroup=self.report.cgroup if self.report is not None else CgroupMemory(),
            children_started=self.children_started or None,
        )


class GroupBook:
    """Which group a worker belongs to: that of the first rule whose pattern its whole nodename
    matches."""

    def __init__(self, rules: Sequence[tuple[re.Pattern[str], str]]) -> None:
        self._rules = rules
        self._groups: dict[tuple[str, str], Group] = {}

    def of(self, broker: str, nodename: str) -> Group | None:
        for pattern, name in self._rules:
            match = pattern.fullmatch(nodename)
            if match is not None:
                key = broker, match.expand(name)
                return self._groups.setdefault(key, Group(key[1], broker))
        return None

    def views(self) -> list[WorkerView]:
        return [
            group.view()
            for group in self._groups.values()
            if group.report is not None or group.traffic is not None
        ]

    def forget(self, alive: set[tuple[str, str]]) -> None:
        """Groups without members, whose names may be made of the members' own."""
        self._groups = {key: group for key, group in self._groups.items() if key in alive}


def counters(report: WorkerReport, sign: int) -> WorkerReport:
    """The report's counters alone, with their sign."""
    oom_kills = report.cgroup.oom_kills
    return dataclasses.replace(
        report,
        processes=[],
        objects=[],
        containers=[],
        running=[],
        traffic=[],
        queues=[],
        active=None,
        prefetched=None,
        tasks=[signed_task(task, sign) for task in report.tasks],
        lost=[dataclasses.replace(each, count=sign * each.count) for each in report.lost],
        children_started=sign * report.children_started,
        children_exited={reason: sign * count for reason, count in report.children_exited.items()},
        cgroup=CgroupMemory(oom_kills=None if oom_kills is None else sign * oom_kills),
        overhead_seconds=sign * report.overhead_seconds,
        reports_dropped=sign * report.reports_dropped,
        errors=sign * report.errors,
    )


def signed(histogram: Histogram, sign: int) -> Histogram:
    return Histogram([sign * count for count in histogram.counts], sign * histogram.sum)


def signed_task(task: TaskReport, sign: int) -> TaskReport:
    return dataclasses.replace(
        task,
        runs={outcome: sign * count for outcome, count in task.runs.items()},
        seconds={outcome: sign * seconds for outcome, seconds in task.seconds.items()},
        delta=signed(task.delta, sign),
        growth_bytes=sign * task.growth_bytes,
        release_bytes=sign * task.release_bytes,
        peak=None if task.peak is None else signed(task.peak, sign),
        retained_blocks=0.0,
        retained_native_bytes=None,
        retained_runs=0,
        audited_runs=sign * task.audited_runs,
        evidence=None,
    )


def signed_traffic(row: Traffic, sign: int) -> Traffic:
    return dataclasses.replace(
        row,
        received=sign * row.received,
        started=sign * row.started,
        succeeded=sign * row.succeeded,
        failed={exception: sign * count for exception, count in row.failed.items()},
        retried=sign * row.retried,
        rejected=sign * row.rejected,
        revoked=sign * row.revoked,
        runtime=signed(row.runtime, sign),
        queue_wait=signed(row.queue_wait, sign),
    )


def add_reports(one: WorkerReport, other: WorkerReport) -> WorkerReport:
    """``other`` says what they are. Buckets of memory are the same in all agents of a version; else
    only its tasks are kept."""
    tasks: dict[tuple[str, str], list[TaskReport]] = {}
    same = (one.bounds.delta_bytes, one.bounds.peak_bytes) == (
        other.bounds.delta_bytes,
        other.bounds.peak_bytes,
    )
    for task in [*(one.tasks if same else []), *other.tasks]:
        tasks.setdefault((task.name, task.queue), []).append(task)
    lost: Counter[tuple[str, str]] = Counter()
    for each in [*one.lost, *other.lost]:
        lost[each.name, each.reason] += each.count
    exited = Counter(one.children_exited)
    exited.update(other.children_exited)
    kills = [each.cgroup.oom_kills for each in (one, other) if each.cgroup.oom_kills is not None]
    return dataclasses.replace(
        other,
        tasks=[total(parts) for parts in tasks.values()],
        lost=[LostRuns(*key, count) for key, count in lost.items()],
        children_started=one.children_started + other.children_started,
        children_exited=dict(exited),
        cgroup=CgroupMemory(oom_kills=sum(kills) if kills else None),
        overhead_seconds=one.overhead_seconds + other.overhead_seconds,
        reports_dropped=one.reports_dropped + other.reports_dropped,
        errors=one.errors + other.errors,
    )


def nothing(bounds: Sequence[float]) -> Histogram:
    return Histogram([0] * (len(bounds) + 1), 0.0)


def add_traffic(one: TrafficView | None, other: TrafficView, limits: Limits) -> TrafficView:
    if one is None:
        return other
    if (one.runtime_seconds, one.queue_wait_seconds) != (
        other.runtime_seconds,
        other.queue_wait_seconds,
    ):
        # The histograms begin anew, the counters go on.
        runtime, queue_wait = (
            nothing(bounds) for bounds in (other.runtime_seconds, other.queue_wait_seconds)
        )
        rows_anew = (
            dataclasses.replace(row, runtime=runtime, queue_wait=queue_wait) for row in one.rows
        )
        one = dataclasses.replace(one, rows=tuple(rows_anew))
    rows: dict[tuple[str, str], list[Traffic]] = {}
    for row in [*one.rows, *other.rows]:
        rows.setdefault((row.name, row.queue), []).append(row)
    return dataclasses.replace(
        other, rows=tuple(cap_exceptions(total(parts), limits) for parts in rows.values())
    )
