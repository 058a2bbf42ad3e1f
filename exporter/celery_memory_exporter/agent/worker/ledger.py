"""What the worker's main process knows of each of its processes, and the totals that outlive a
child. No I/O.

Records arrive in the order that each child wrote them and are cumulative per child; a child's
totals become part of the worker's own when it is gone, without what ended with it (live memory).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from celery_memory_exporter.agent.heap import census
from celery_memory_exporter.agent.heap.census import TypeCount
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.meter.books import Costs
from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.agent.stats.row import sum_of
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.agent.worker import evidence
from celery_memory_exporter.agent.worker.evidence import TaskEvidence
from celery_memory_exporter.agent.worker.figures import OwnFigures
from celery_memory_exporter.agent.worker.records import (
    Bye,
    ContainersRecord,
    FiguresRecord,
    Hello,
    Record,
    TotalsRecord,
    TypesRecord,
)
from celery_memory_exporter.agent.worker.shared_map import TakenRow
from celery_memory_exporter.common.report import LostRuns

#: Points of a process's past.
HISTORY_SIZE = 24


class History:
    """A process's past in at most ``HISTORY_SIZE`` points, spread over its whole life: when there
    are too many, every second one goes. Points are as ``report.HISTORY`` names their figures, and
    then what runs are said to have left behind; the first figure is the time and rises."""

    def __init__(self) -> None:
        self.points: list[list[float]] = []
        self._pause = 0.0

    def add(self, point: list[float]) -> None:
        """Keeps the point, or lets it stand for the last one while that is too young for another
        beside it."""
        if len(self.points) >= 2 and self.points[-1][0] - self.points[-2][0] < self._pause:
            self.points[-1] = point
            return
        self.points.append(point)
        if len(self.points) > HISTORY_SIZE:
            life = self.points[-1][0] - self.points[0][0]
            self._pause = 2 * max(self._pause, life / HISTORY_SIZE)
            self.points = [*self.points[:-1:2], self.points[-1]]


@dataclass(slots=True)
class ProcessTotals:
    """What the runs of one living process add up to, and what it sent of itself: a pool child, or
    the main process."""

    slot: int
    start_ticks: int | None
    #: Monotonic seconds at which it was first seen.
    since: float = field(default_factory=time.monotonic)
    tasks: dict[TaskKey, TaskTotals] = field(default_factory=dict)
    evidence: dict[TaskKey, TaskEvidence] = field(default_factory=dict)
    containers: list[GrowingContainer] = field(default_factory=list)
    figures: OwnFigures = OwnFigures()
    history: History = field(default_factory=History)
    types: dict[str, TypeCount] = field(default_factory=dict)
    costs: Costs = Costs()
    #: Of a child that ends by itself: how, and the highest resident memory of its life.
    exit_code: int | None = None
    peak_bytes: int = 0

    @property
    def retained_bytes(self) -> float:
        """Live bytes that its runs are said to have left behind."""
        return sum(known.alone.retained.bytes for known in self.evidence.values())

    def apply(self, record: Record) -> None:
        """Takes one record of the process; it replaces an earlier one of its kind and task."""
        match record:
            case TotalsRecord(_, key, row):
                self.tasks[key] = TaskTotals.from_bytes(row)
            case FiguresRecord(_, figures, costs):
                self.figures, self.costs = figures, costs
            case TypesRecord(_, counts):
                self.types = census.known(self.types, counts)
            case ContainersRecord(_, rows):
                self.containers = rows
            case Bye(_, exit_code, peak_bytes):
                self.exit_code, self.peak_bytes = exit_code, peak_bytes
            case Hello():
                pass
            case _:
                self.evidence.setdefault(record.key, TaskEvidence()).apply(record)


class Ledger:
    """The main process, the living children by pid, and what is left of those gone."""

    def __init__(self, max_tasks: int, start_ticks: int | None = None) -> None:
        self.main = ProcessTotals(slot=-1, start_ticks=start_ticks)
        self.children: dict[int, ProcessTotals] = {}
        self.started = 0
        self.exited: Counter[str] = Counter()
        self.lost: Counter[tuple[str, str]] = Counter()
        self._max_tasks = max_tasks
        self._admitted: set[TaskKey] = {tally.OTHER}
        self._gone_tasks: dict[TaskKey, TaskTotals] = {}
        self._gone_evidence: dict[TaskKey, TaskEvidence] = {}
        self._gone_costs = Costs()

    def add_child(self, pid: int, slot: int, start_ticks: int | None) -> None:
        """The child's own ``Hello`` and the pool's list both lead here; the first one counts."""
        if pid not in self.children:
            self.started += 1
            self.children[pid] = ProcessTotals(slot, start_ticks)

    def apply(self, record: Record) -> None:
        """Takes one record of a child. Of one whose ``Hello`` found the pipe full nothing is taken
        until the pool shows it."""
        if isinstance(record, Hello):
            self.add_child(*record)
        elif record.pid in self.children:
            self.children[record.pid].apply(record)

    def show_rows(self, rows: Iterable[TakenRow]) -> None:
        """The rows that children have in the shared map, which go on rising there. One that has
        come and gone between two looks is known by them alone."""
        for row in rows:
            self.add_child(row.pid, row.slot, None)
            self.children[row.pid].tasks.setdefault(row.key, row.totals)

    def remove_child(self, pid: int, reason: str, running: str | None) -> None:
        """A child is gone. ``running`` is the task it was in, when it did not end by itself."""
        child = self.children.pop(pid)
        self.exited[reason] += 1
        if running:
            key = (running, reason)
            self.lost[
                key if key in self.lost or len(self.lost) < self._max_tasks else ("other", reason)
            ] += 1
        for task, row in child.tasks.items():
            kept = self._key(task)
            before_it = [self._gone_tasks[kept]] if kept in self._gone_tasks else []
            self._gone_tasks[kept] = sum_of([*before_it, row])
        for task, known in child.evidence.items():
            kept = self._key(task)
            before = [self._gone_evidence[kept]] if kept in self._gone_evidence else []
            evidence.settle([*before, known])
            self._gone_evidence[kept] = evidence.faded(evidence.together([*before, known]))
        self._gone_costs += child.costs

    def processes(self) -> list[ProcessTotals]:
        """The living ones, the main process last."""
        return [*self.children.values(), self.main]

    def tasks(self) -> dict[TaskKey, TaskTotals]:
        """Per task type the sum over all processes, gone ones included."""
        grouped = {key: [row] for key, row in self._gone_tasks.items()}
        for process in self.processes():
            # A copy: in the threads pool the main process's own rows grow meanwhile.
            for key, row in list(process.tasks.items()):
                grouped.setdefault(self._key(key), []).append(row)
        return {key: sum_of(rows) for key, rows in grouped.items()}

    def kept(self) -> dict[TaskKey, TaskTotals]:
        """The same, of what is in no row of the shared map."""
        grouped = {key: [row] for key, row in self._gone_tasks.items()}
        for process in self.processes():
            for key, row in list(process.tasks.items()):
                if not row.shared:
                    grouped.setdefault(self._key(key), []).append(row)
        return {key: sum_of(rows) for key, rows in grouped.items()}

    def lost_runs(self) -> list[LostRuns]:
        """Runs whose child died under them."""
        return [LostRuns(*key, count) for key, count in sorted(self.lost.items())]

    def evidence(self) -> dict[TaskKey, list[TaskEvidence]]:
        """Per task type what each process knows, gone ones together."""
        grouped = {key: [known] for key, known in self._gone_evidence.items()}
        for process in self.processes():
            for key, known in process.evidence.items():
                grouped.setdefault(self._key(key), []).append(known)
        for parts in grouped.values():
            evidence.settle(parts)
        return grouped

    def containers(self) -> list[GrowingContainer]:
        """Growing containers by path, summed over living processes, the fastest growing first."""
        by_path: dict[str, GrowingContainer] = {}
        for process in self.processes():
            for row in process.containers:
                before = by_path.get(
                    row.path, GrowingContainer(row.path, row.kind, 0, 0, row.capacity)
                )
                by_path[row.path] = replace(
                    row, items=row.items + before.items, growth=row.growth + before.growth
                )
        return sorted(by_path.values(), key=lambda row: -row.growth)

    def types(self) -> dict[str, TypeCount]:
        """Counts of object types, summed over living processes."""
        summed: dict[str, TypeCount] = {}
        for process in self.processes():
            for name, (count, grown, recent) in process.types.items():
                before = summed.get(name, census.GONE)
                summed[name] = (before[0] + count, before[1] + grown, before[2] + recent)
        return summed

    def costs(self) -> Costs:
        """What the agent costs in all processes, gone ones included."""
        return sum((process.costs for process in self.processes()), start=self._gone_costs)

    def _key(self, key: TaskKey) -> TaskKey:
        """Children may each know other task types: the cap holds for the worker. A type once told
        apart stays so."""
        if key not in self._admitted:
            if len(self._admitted) > self._max_tasks:  # OTHER is in there, too
                return tally.OTHER
            self._admitted.add(key)
        return key
