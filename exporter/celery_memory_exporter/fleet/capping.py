"""A report within the exporter's own limits: an agent may have others, and a sender may be no agent
at all.

What is beyond a limit is summed under ``other`` where a sum makes sense, left out where it does
not, and counted either way.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from celery_memory_exporter.common.evidence import Evidence
from celery_memory_exporter.common.names import OTHER
from celery_memory_exporter.common.report import (
    DISCARD_REASONS,
    EXIT_REASONS,
    Container,
    LostRuns,
    ObjectCount,
    Running,
    TaskReport,
    Traffic,
    WorkerReport,
)
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.partial import without_parts
from celery_memory_exporter.fleet.sums import ranked, together

#: Per task type; and containers per worker as well. An agent sends no more.
MAX_SITES = MAX_CONTAINERS = 10


@dataclass(slots=True)
class Admitted:
    """Task names so far, first come, first served, so that a counter once shown stays shown.
    Messages may have names of their own (``shadow``), without end."""

    tasks: set[str] = field(default_factory=set)
    traffic: set[str] = field(default_factory=set)


def capped(
    report: WorkerReport, admitted: Admitted, limits: Limits
) -> tuple[WorkerReport, Counter[str]]:
    """The report as it may be shown, and how much of it may not, by family. ``admitted`` is the
    worker's, and takes new names."""
    capping = _Capping(admitted, limits)
    return capping.report(report), +capping.dropped


def cap_exceptions(row: Traffic, limits: Limits) -> Traffic:
    """The row with its first so many exceptions, and the others as one."""
    failed: dict[str, int] = {}
    for name, count in row.failed.items():
        known = name in failed or len(failed) < limits.exceptions_per_task
        label = name if known else OTHER
        failed[label] = failed.get(label, 0) + count
    return dataclasses.replace(row, failed=failed)


class _Capping:
    """One report's."""

    def __init__(self, admitted: Admitted, limits: Limits) -> None:
        self.dropped: Counter[str] = Counter()
        self._admitted = admitted
        self._limits = limits

    def report(self, report: WorkerReport) -> WorkerReport:
        """Task types are admitted in this order."""
        return dataclasses.replace(
            report,
            tasks=self._tasks(report.tasks, partial=bool(report.partial)),
            lost=self._lost(report.lost),
            traffic=self._traffic(report.traffic),
            running=self._running(report.running),
            objects=self._objects(report.objects),
            containers=self._containers(report.containers),
            main_containers=self._containers(report.main_containers),
            queues=self._queues(report.queues),
            children_exited=summed(
                (reason_of(reason), count) for reason, count in report.children_exited.items()
            ),
            audits_discarded=summed(
                (reason_of(reason, DISCARD_REASONS), count)
                for reason, count in report.audits_discarded.items()
            ),
        )

    # --- by task type ----------------------------------------------------------------------------

    def _tasks(self, tasks: Iterable[TaskReport], *, partial: bool) -> list[TaskReport]:
        cut = [
            dataclasses.replace(
                task,
                name=self._admit_task(task.name),
                queue=self._cut(task.queue),
                evidence=self._cut_evidence(task.evidence),
            )
            for task in tasks
        ]
        return [
            dataclasses.replace(task, evidence=self._cap_evidence(task.evidence))
            for task in together(without_parts(cut) if partial else cut)
        ]

    def _lost(self, lost: Iterable[LostRuns]) -> list[LostRuns]:
        return together(
            LostRuns(self._admit_task(each.name), reason_of(each.reason), each.count)
            for each in lost
        )

    def _traffic(self, rows: Iterable[Traffic]) -> list[Traffic]:
        cut = [
            dataclasses.replace(
                row,
                name=self._admit_traffic(row.name),
                queue=self._cut(row.queue),
                failed=self._cut_keys(row.failed),
            )
            for row in rows
        ]
        return [cap_exceptions(row, self._limits) for row in together(cut)]

    def _running(self, running: Iterable[Running]) -> list[Running]:
        return together(
            dataclasses.replace(each, name=self._admit_traffic(each.name)) for each in running
        )

    def _admit_task(self, name: str) -> str:
        return self._admit(name, self._admitted.tasks, "celery_task_memory_delta_bytes")

    def _admit_traffic(self, name: str) -> str:
        return self._admit(name, self._admitted.traffic, "celery_task_received_total")

    def _admit(self, name: str, names: set[str], family: str) -> str:
        name = self._cut(name)
        if name not in names and len(names) >= self._limits.tasks_per_worker:
            self.dropped[family] += 1
            return OTHER
        names.add(name)
        return name

    # --- of the worker ---------------------------------------------------------------------------

    def _objects(self, objects: list[ObjectCount]) -> list[ObjectCount]:
        limit = self._limits.object_types_per_worker
        self.dropped["celery_worker_objects"] += max(0, len(objects) - limit)
        return together(
            dataclasses.replace(each, type=self._cut(each.type)) for each in objects[:limit]
        )

    def _containers(self, containers: list[Container]) -> list[Container]:
        beyond = max(0, len(containers) - MAX_CONTAINERS)
        self.dropped["celery_worker_container_items"] += beyond
        return together(
            dataclasses.replace(each, path=self._cut(each.path))
            for each in containers[:MAX_CONTAINERS]
        )

    def _queues(self, queues: Iterable[str]) -> list[str]:
        """Without names that would have to be cut: a broker cannot be asked about half a name."""
        whole = dict.fromkeys(each for each in queues if each == self._cut(each))
        return list(islice(whole, self._limits.queues))

    # --- evidence --------------------------------------------------------------------------------

    def _cut_evidence(self, evidence: Evidence | None) -> Evidence | None:
        """With its labels cut; those that become equal are one."""
        if evidence is None:
            return None
        cut = self._cut
        return dataclasses.replace(
            evidence,
            survivors=self._cut_keys(evidence.survivors),
            sites=together(
                dataclasses.replace(each, site=cut(each.site)) for each in evidence.sites
            ),
            holders=together(
                dataclasses.replace(each, path=cut(each.path)) for each in evidence.holders
            ),
            fills=[dataclasses.replace(each, path=cut(each.path)) for each in evidence.fills],
            paths=list(dict.fromkeys(map(cut, evidence.paths))),
        )

    def _cap_evidence(self, evidence: Evidence | None) -> Evidence | None:
        """The largest of each."""
        if evidence is None:
            return None
        first = ranked(evidence)
        types = self._limits.object_types_per_worker
        return dataclasses.replace(
            first,
            survivors=dict(islice(first.survivors.items(), types)),
            sites=first.sites[:MAX_SITES],
            holders=first.holders[:MAX_CONTAINERS],
            fills=first.fills[:MAX_CONTAINERS],
        )

    def _cut(self, label: str) -> str:
        return label[: self._limits.label_length]

    def _cut_keys(self, counts: Mapping[str, int]) -> dict[str, int]:
        return summed((self._cut(label), count) for label, count in counts.items())


def summed(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Counts by label, equal labels added up."""
    result: dict[str, int] = {}
    for label, count in counts:
        result[label] = result.get(label, 0) + count
    return result


def reason_of(text: str, known: Collection[str] = EXIT_REASONS) -> str:
    """Why a child ended, or another reason that is known. A newer agent, or a sender that is none,
    may have other ones."""
    return text if text in known else OTHER
