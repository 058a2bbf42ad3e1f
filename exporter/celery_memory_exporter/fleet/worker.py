"""All that the fleet holds of one worker, and how it is shown.

Only used by the fleet, which has the lock and says what time it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from celery_memory_exporter.common.evidence import Estimate
from celery_memory_exporter.common.kernel import CgroupMemory, Status
from celery_memory_exporter.common.report import ProcessReport, Running, WorkerReport
from celery_memory_exporter.fleet.capping import Admitted
from celery_memory_exporter.fleet.estimates import ResidentShares
from celery_memory_exporter.fleet.facts import (
    Identity,
    ProcessMemory,
    SharedMemory,
    WorkerFacts,
    WorkerProcesses,
)
from celery_memory_exporter.fleet.groups import Group
from celery_memory_exporter.fleet.matching import Key, process_of
from celery_memory_exporter.fleet.snapshot import ProcessView, WorkerView
from celery_memory_exporter.fleet.totals import AgentTotals, Totals, TrafficView
from celery_memory_exporter.fleet.worker_tasks import WorkerTasks

#: A report is the present state for this many intervals; one may be lost and one late.
FRESH_INTERVALS = 3


def _shared_fields(cls: type, *, without: str = "") -> tuple[str, ...]:
    """Figures of a process that ``cls`` has by the same name."""
    figures = {each.name for each in dataclasses.fields(ProcessReport)} - {without}
    return tuple(each.name for each in dataclasses.fields(cls) if each.name in figures)


#: What the kernel tells of a process, and what may be kept from whoever looks from outside. A pid
#: is another one there.
KERNEL_FIGURES = _shared_fields(Status)
GUARDED_FIGURES = _shared_fields(ProcessMemory, without="pid")


@dataclass(slots=True)
class WorkerState:
    """One worker at one broker. Times are of receipt; ``seen`` is when anything last told of it."""

    nodename: str
    broker: str
    seen: float
    tasks: WorkerTasks
    report: WorkerReport | None = None
    reported: float = 0.0
    heartbeat: float | None = None
    offline: bool = False
    active_tasks: int | None = None
    facts: WorkerFacts | None = None
    table: WorkerProcesses | None = None
    slots: dict[Identity, int] = field(default_factory=dict)
    children_seen: int = 0
    group: Group | None = None
    admitted: Admitted = field(default_factory=Admitted)
    shares: ResidentShares = field(default_factory=ResidentShares)

    @property
    def key(self) -> Key:
        return self.broker, self.nodename

    def reporting(self, now: float) -> bool:
        """Whether its agent's last report still holds."""
        return (
            self.report is not None
            and now - self.reported <= FRESH_INTERVALS * self.report.interval_seconds + 1
        )

    def beat(self, active: int | None, now: float, *, offline: bool) -> None:
        """A heartbeat, or its goodbye. One that somebody asked for has no figures."""
        self.seen = now
        self.offline = offline
        self.heartbeat = None if offline else now
        if offline or active is not None:
            self.active_tasks = None if offline else active

    def beating(self, now: float, timeout: float) -> bool:
        return self.heartbeat is not None and now - self.heartbeat <= timeout

    def only_seen(self) -> bool:
        """Whether nothing but the process table has ever told of it, and that no longer does."""
        heard = (
            self.report is not None
            or self.heartbeat is not None
            or self.facts is not None
            or self.tasks.known
        )
        return self.table is None and not heard

    def consumed(self) -> tuple[str, ...]:
        """The queues that it takes tasks from, as far as it tells."""
        if self.report is not None:
            return tuple(self.report.queues)
        return self.facts.queues if self.facts is not None else ()

    def sole_queue(self) -> str | None:
        queues = self.consumed()
        return queues[0] if len(queues) == 1 else None

    def totals(self) -> Totals | None:
        """What it has counted; ``None`` of one that only the process table or its heartbeats
        show."""
        report = self.report
        if report is None and not self.tasks.known:
            return None
        return Totals(
            children_started=self._children_started(),
            cgroup=_counted(report),
            agent=AgentTotals.of(report) if report is not None else None,
            traffic=self._traffic(),
        )

    def begin_anew(self) -> None:
        """What was counted without an agent is counted elsewhere: here it begins at zero."""
        self.tasks.counts.clear()
        self.children_seen = 0

    def without_report(self) -> WorkerState:
        """As it is when its report has expired; this one stays what it is."""
        return dataclasses.replace(self, report=None)

    def learn(self, facts: WorkerFacts, default_name: str) -> None:
        """What it answers. Until the first time, tasks were counted for the default queue where
        nothing told theirs."""
        first, self.facts = self.facts is None, facts
        queue = self.sole_queue()
        # In a group other members' counters may be in the same series, which then would fall.
        if first and self.group is None and queue not in (None, default_name):
            self.tasks.counts.move(default_name, str(queue))

    def pool_processes(self) -> int:
        """Processes that run tasks; as danihodovic/celery-exporter counts them, none outside
        prefork."""
        if self.report is not None:
            return self.report.concurrency if self.report.pool == "prefork" else 0
        return self.facts.processes if self.facts is not None else 0

    def take_table(self, table: WorkerProcesses) -> None:
        """What the process table shows of it now."""
        self.table = table
        self._assign_slots(table)
        if self.report is None:
            self.shares.read(table, self.tasks.ended)
        self.tasks.ended.clear()

    def _assign_slots(self, processes: WorkerProcesses) -> None:
        """Slot numbers as the pool gives them: a new child takes the lowest one free."""
        slots: dict[Identity, int] = {}
        for child in processes.children:
            told = process_of(self.report, child)
            if told is not None and told.process.isdigit():
                slots[child.identity] = int(told.process)
        for child in processes.children:
            # What was guessed before stays, unless the agent has given that slot to another child
            # since.
            guessed = self.slots.get(child.identity)
            if guessed is not None and guessed not in slots.values():
                slots.setdefault(child.identity, guessed)
        for child in processes.children:
            if child.identity not in slots:
                used = set(slots.values())
                slots[child.identity] = next(
                    slot for slot in range(len(used) + 1) if slot not in used
                )
        self.children_seen += len(slots.keys() - self.slots.keys())
        self.slots = slots

    def view(
        self, now: float, *, in_table: bool, timeout: float, shared: Mapping[Identity, SharedMemory]
    ) -> WorkerView:
        """``in_table``: whether the process table, as it was last read, still holds and shows the
        worker."""
        report, facts = self.report, self.facts
        beating = self.beating(now, timeout) and not self.offline
        by_report = self.reporting(now)
        live = in_table or (by_report and not self.offline)
        table = self.table if in_table else None
        return WorkerView(
            nodename=self.group.name if self.group is not None else self.nodename,
            broker=self.broker,
            up=live or beating,
            live=live,
            report=report,
            pool=report.pool if report else facts.pool if facts else None,
            concurrency=report.concurrency if report else facts.concurrency if facts else None,
            active_tasks=self._active(beating=beating, by_report=by_report),
            prefetched_tasks=self._prefetched(by_report=by_report, up=live or beating),
            running=self._running(now, by_report=by_report),
            traffic=self._traffic(),
            events_lost=self.tasks.lost if report is None else None,
            estimates=self._estimates(),
            processes=tuple(self._processes(table, shared)) if live else (),
            cgroup=_cgroup(report, table) if live else _counted(report),
            children_started=self._children_started(),
            age_seconds=now - self.seen,
        )

    # --- parts -----------------------------------------------------------------------------------

    def _active(self, *, beating: bool, by_report: bool) -> int | None:
        if beating and self.active_tasks is not None:
            return self.active_tasks
        return self.report.active if self.report is not None and by_report else None

    def _prefetched(self, *, by_report: bool, up: bool) -> int | None:
        if self.report is not None:
            return self.report.prefetched if by_report else None
        return self.tasks.prefetched if self.tasks.known and up else None

    def _running(self, now: float, *, by_report: bool) -> tuple[Running, ...]:
        if self.report is not None:
            return tuple(self.report.running) if by_report else ()
        return tuple(self.tasks.tell_running(now))

    def _children_started(self) -> int | None:
        return self.report.children_started if self.report else self.children_seen or None

    def _traffic(self) -> TrafficView | None:
        if self.report is not None:
            bounds = self.report.bounds
            return TrafficView(
                tuple(bounds.runtime_seconds),
                tuple(bounds.queue_wait_seconds),
                tuple(self.report.traffic),
            )
        rows = tuple(self.tasks.counts.reports())
        return TrafficView(*self.tasks.counts.bounds, rows) if rows else None

    def _estimates(self) -> dict[str, Estimate]:
        return self.shares.estimates if self.report is None else {}

    def _processes(
        self, table: WorkerProcesses | None, shared: Mapping[Identity, SharedMemory]
    ) -> Iterable[ProcessView]:
        if table is None:
            assert self.report is not None  # a live worker without the table lives by its report
            for told in self.report.processes:
                yield ProcessView(told)
            return
        yield self._process("main", table.main, shared)
        for child in table.children:
            yield self._process(str(self.slots[child.identity]), child, shared)

    def _process(
        self, name: str, seen: ProcessMemory, shared: Mapping[Identity, SharedMemory]
    ) -> ProcessView:
        told = process_of(self.report, seen) or ProcessReport(
            name, seen.pid, seen.identity.start_ticks
        )
        kernel = {each: getattr(seen.status, each) for each in KERNEL_FIGURES}
        guarded = {each: getattr(seen, each) for each in GUARDED_FIGURES}
        known = {each: value for each, value in guarded.items() if value is not None}
        # The agent restarts the kernel's mark for each run and keeps the lifetime's peak itself.
        peak = max(seen.status.peak_rss_bytes or 0, told.peak_rss_bytes or 0) or None
        changed = kernel | known | {"process": name, "peak_rss_bytes": peak}
        return ProcessView(dataclasses.replace(told, **changed), shared.get(seen.identity))


def _counted(report: WorkerReport | None) -> CgroupMemory:
    """Of a worker in the past: what was counted."""
    return CgroupMemory(oom_kills=report.cgroup.oom_kills) if report is not None else CgroupMemory()


def _cgroup(report: WorkerReport | None, table: WorkerProcesses | None) -> CgroupMemory:
    """From inside the worker's container if it tells, since its own files may not be seen from
    here."""
    if report is not None and report.cgroup != CgroupMemory():
        return report.cgroup
    return table.cgroup if table is not None else CgroupMemory()
