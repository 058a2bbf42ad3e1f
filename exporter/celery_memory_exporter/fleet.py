"""What we believe about all workers now, out of three sources: agents' reports, worker events, and the local process table.

``apply_…(…, now)`` writes, ``snapshot(now)`` reads; no I/O and no clock in here. ``now`` is monotonic seconds at
receipt: a sender's clock never decides anything, save which of two runs of one worker is the later.

Rules:

* a report is taken if it is newer than what is held: higher sequence of the same instance, or an instance that started later.
  Everything in it is cumulative, so taking it means replacing;
* the process table knows the machine better and sooner than the agent (5 s against 15 s): where both tell of one
  process, matched by identity and never by name, the table's figures of the operating system win, and processes it no
  longer sees are gone;
* a worker's present state (its processes) is shown while something tells that it lives; its counters until it has been silent for
  ``expire_after`` seconds, and then nothing;
* whatever is keyed from outside has a cap, and hitting it is counted in ``dropped``.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from celery_memory_exporter.bounds import OTHER, Limits, bounded
from celery_memory_exporter.processes import Identity, ProcessMemory, SharedMemory, WorkerProcesses
from celery_memory_exporter.procfs import CgroupMemory
from celery_memory_exporter.report import ProcessReport, WorkerReport
from celery_memory_exporter.snapshot import ProcessView, Snapshot, SourceView, WorkerView
from celery_memory_exporter.wire import REASONS

#: A report is the present state for this many intervals; one may be lost and one late.
FRESH_INTERVALS = 3
#: The same for the process table, in seconds: six of its default intervals.
TABLE_FRESH_SECONDS = 30.0


@dataclass(slots=True)
class _Worker:
    """All that is held of one worker. Times are of receipt."""

    seen: float
    report: WorkerReport | None = None
    reported: float = 0.0
    heartbeat: float | None = None
    offline: bool = False
    active_tasks: int | None = None
    table: WorkerProcesses | None = None
    slots: dict[Identity, int] = field(default_factory=dict)
    children_seen: int = 0
    #: Admitted first come, first served: a counter that is shown stays shown.
    task_names: set[str] = field(default_factory=set)


class Fleet:
    """Thread-safe. ``boot_id`` is this machine's, to tell its own workers' reports from other machines'."""

    def __init__(self, *, boot_id: str, limits: Limits, expire_after: float, heartbeat_timeout: float) -> None:
        self._boot_id = boot_id
        self._limits = limits
        self._expire_after = expire_after
        self._heartbeat_timeout = heartbeat_timeout
        self._lock = threading.Lock()
        self._workers: dict[str, _Worker] = {}
        self._table_at: float | None = None
        self._shared: dict[Identity, SharedMemory] = {}
        self._sources: dict[str, SourceView] = {}
        self._received = 0
        self._rejected: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self._events: Counter[str] = Counter()
        self._lag: float | None = None
        self._reconnects = 0
        self._dropped: Counter[str] = Counter()

    # --- writing ----------------------------------------------------------------------------------------------------

    def apply_report(self, report: WorkerReport, now: float) -> str | None:
        """Takes a decoded report; the answer is the reason when it is refused."""
        with self._lock:
            self._received += 1
            worker = self._admit(report.worker, now)
            refused = "capacity" if worker is None else _refusal(worker.report, report)
            if refused is not None or worker is None:
                self._rejected[refused or "capacity"] += 1
                return refused
            worker.report, dropped = bounded(report, worker.task_names, self._limits)
            self._dropped.update(dropped)
            worker.reported = worker.seen = now
            worker.offline = False
            return None

    def reject_report(self, reason: str) -> None:
        """Counts a report that could not be decoded."""
        with self._lock:
            self._received += 1
            self._rejected[reason] += 1

    def apply_worker_event(self, nodename: str, kind: str, active: int | None, now: float) -> None:
        """``kind`` is the event type: ``worker-online``, ``worker-heartbeat``, ``worker-offline``."""
        with self._lock:
            worker = self._admit(nodename, now)
            if worker is None:
                return
            worker.seen = now
            worker.offline = kind == "worker-offline"
            worker.heartbeat = None if worker.offline else now
            worker.active_tasks = None if worker.offline else active

    def apply_processes(self, table: Iterable[WorkerProcesses], now: float) -> None:
        """Replaces what the process table told before."""
        with self._lock:
            self._table_at = now
            for worker in self._workers.values():
                worker.table = None
            for nodename, processes in self._named(list(table)):
                shown = self._admit(nodename, now)
                if shown is not None:
                    shown.table = processes
                    shown.seen = now
                    self._assign_slots(shown, processes)

    def apply_shared_memory(self, shared: dict[Identity, SharedMemory]) -> None:
        """Replaces all PSS and USS figures, which come at their own slow pace."""
        with self._lock:
            self._shared = shared

    def apply_event(self, group: str, lag: float | None) -> None:
        """Counts an event of any kind; ``lag`` is how long it took here by the sender's clock."""
        with self._lock:
            if group not in self._events and len(self._events) >= self._limits.object_types:
                group = OTHER
            self._events[group] += 1
            if lag is not None:
                self._lag = lag

    def apply_source(self, name: str, *, up: bool, duration: float | None = None) -> None:
        with self._lock:
            self._sources[name] = SourceView(up, duration)

    def apply_reconnect(self) -> None:
        with self._lock:
            self._reconnects += 1

    # --- reading ----------------------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> Snapshot:
        """What is believed at ``now``; workers that have been silent for too long are forgotten first."""
        with self._lock:
            for nodename in [name for name, worker in self._workers.items() if now - worker.seen > self._expire_after]:
                del self._workers[nodename]
            return Snapshot(
                workers=tuple(self._view(nodename, worker, now) for nodename, worker in sorted(self._workers.items())),
                sources=dict(self._sources),
                reports_received=self._received,
                reports_rejected=dict(self._rejected),
                events_received=dict(self._events),
                event_lag_seconds=self._lag,
                broker_reconnects=self._reconnects,
                dropped=dict(self._dropped),
            )

    # --- parts ------------------------------------------------------------------------------------------------------

    def _admit(self, nodename: str, now: float) -> _Worker | None:
        worker = self._workers.get(nodename)
        if worker is None:
            if len(self._workers) >= self._limits.workers:
                self._dropped["celery_worker_info"] += 1
                return None
            worker = self._workers[nodename] = _Worker(seen=now)
        return worker

    def _named(self, table: list[WorkerProcesses]) -> Iterable[tuple[str, WorkerProcesses]]:
        """Each worker of the table with the name that its own agent gives it, else the one on its command line.

        A command line's name that another worker has is numbered: two workers of one host stay apart even when they were started
        with the same name, and a worker on another machine keeps its own.
        """
        taken = {
            name for name, worker in self._workers.items() if worker.report and worker.report.instance.boot_id != self._boot_id
        }
        unnamed = []
        for processes in table:
            name = self._reported_name(processes)
            if name is None:
                unnamed.append(processes)
            else:
                taken.add(name)
                yield name, processes
        for processes in unnamed:
            numbered = (f"{processes.nodename}#{number}" for number in range(2, len(taken) + 3))
            name = next(name for name in [processes.nodename, *numbered] if name not in taken)
            taken.add(name)
            yield name, processes

    def _reported_name(self, processes: WorkerProcesses) -> str | None:
        for name, worker in self._workers.items():
            if worker.report is not None and self._is_main(worker.report, processes):
                return name
        return None

    def _is_main(self, report: WorkerReport, processes: WorkerProcesses) -> bool:
        told = report.instance
        identity = processes.main.identity
        return told.boot_id == self._boot_id and identity.matches(told.pid, told.start_ticks, told.pid_namespace)

    def _assign_slots(self, worker: _Worker, processes: WorkerProcesses) -> None:
        """Slot numbers as the pool gives them: a new child takes the lowest one free."""
        slots: dict[Identity, int] = {}
        for child in processes.children:
            told = _told(worker.report, child)
            if told is not None and told.process.isdigit():
                slots[child.identity] = int(told.process)
        for child in processes.children:
            # What was guessed before stays, unless the agent has given that slot to another child since.
            guessed = worker.slots.get(child.identity)
            if guessed is not None and guessed not in slots.values():
                slots.setdefault(child.identity, guessed)
        for child in processes.children:
            if child.identity not in slots:
                used = set(slots.values())
                slots[child.identity] = next(slot for slot in range(len(used) + 1) if slot not in used)
        worker.children_seen += len(slots.keys() - worker.slots.keys())
        worker.slots = slots

    def _view(self, nodename: str, worker: _Worker, now: float) -> WorkerView:
        report = worker.report
        in_table = worker.table is not None and self._table_at is not None and now - self._table_at <= TABLE_FRESH_SECONDS
        reporting = report is not None and now - worker.reported <= FRESH_INTERVALS * report.interval_seconds + 1
        beating = worker.heartbeat is not None and now - worker.heartbeat <= self._heartbeat_timeout
        live = in_table or (reporting and not worker.offline)
        table = worker.table if in_table else None
        return WorkerView(
            nodename=nodename,
            up=live or (beating and not worker.offline),
            live=live,
            report=report,
            active_tasks=worker.active_tasks if beating else None,
            processes=tuple(self._processes(worker, table)) if live else (),
            cgroup=_cgroup(report, table) if live else CgroupMemory(),
            children_started=report.children_started if report else worker.children_seen or None,
        )

    def _processes(self, worker: _Worker, table: WorkerProcesses | None) -> Iterable[ProcessView]:
        if table is None:
            assert worker.report is not None  # a live worker without the table lives by its report
            for told in worker.report.processes:
                yield ProcessView(told)
            return
        yield self._process("main", worker.report, table.main)
        for child in table.children:
            yield self._process(str(worker.slots[child.identity]), worker.report, child)

    def _process(self, name: str, report: WorkerReport | None, seen: ProcessMemory) -> ProcessView:
        told = _told(report, seen) or ProcessReport(name, seen.pid, seen.identity.start_ticks)
        status = seen.status
        figures = dataclasses.replace(
            told,
            process=name,
            rss_bytes=status.rss_bytes,
            anon_bytes=status.anon_bytes,
            shmem_bytes=status.shmem_bytes,
            swap_bytes=status.swap_bytes,
            # The agent restarts the kernel's mark for each run and keeps the lifetime's peak itself.
            peak_rss_bytes=max(status.peak_rss_bytes or 0, told.peak_rss_bytes or 0) or None,
            threads=status.threads,
            open_fds=told.open_fds if seen.open_fds is None else seen.open_fds,
            max_fds=told.max_fds if seen.max_fds is None else seen.max_fds,
            zombies=told.zombies if seen.zombies is None else seen.zombies,
        )
        return ProcessView(figures, self._shared.get(seen.identity))


def _refusal(held: WorkerReport | None, new: WorkerReport) -> str | None:
    """Why a report must not replace the one that is held, if so."""
    if held is None:
        return None
    if held.instance == new.instance:
        if new.sequence == held.sequence:
            return "duplicate"
        return "stale" if new.sequence < held.sequence else None
    return "stale" if new.instance.started_at < held.instance.started_at else None


def _told(report: WorkerReport | None, seen: ProcessMemory) -> ProcessReport | None:
    """What the worker's agent tells of a process that the table shows."""
    if report is None:
        return None
    namespace = report.instance.pid_namespace
    matching = (each for each in report.processes if seen.identity.matches(each.pid, each.start_ticks, namespace))
    return next(matching, None)


def _cgroup(report: WorkerReport | None, table: WorkerProcesses | None) -> CgroupMemory:
    """From inside the worker's container if it tells, since its own files may not be seen from here."""
    if report is not None and report.cgroup != CgroupMemory():
        return report.cgroup
    return table.cgroup if table is not None else CgroupMemory()
