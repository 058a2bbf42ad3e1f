"""What we believe about all workers now: out of agents' reports, Celery's events, the local process
table, and what brokers tell.

``apply_…(…, now)`` writes, ``snapshot(now)`` reads; no I/O and no clock in here. ``now`` is
monotonic seconds at receipt: a sender's clock never decides anything, save which of two runs of one
worker is the later.

Rules:

* a worker is a nodename at a broker; the same name at two brokers is two workers;
* a report is taken if it is newer than what is held: higher sequence of the same instance, or an
  instance that started later. Everything in it is cumulative, so taking it means replacing;
* a worker with an agent is counted by its reports, and its task events, which it may send as well,
  are not;
* the process table knows the machine better and sooner than the agent (5 s against 15 s): where
  both tell of one process, matched by identity and never by name, the table's figures of the
  operating system win, and processes it no longer sees are gone;
* a worker's present state (its processes) is shown while something tells that it lives; its
  counters until it has been silent for ``expire_after_seconds``, and then nothing;
* whatever is keyed from outside has a cap, and hitting it is counted in ``dropped``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from celery_memory_exporter.common.codec import REASONS
from celery_memory_exporter.common.names import OTHER, printable
from celery_memory_exporter.common.report import WorkerReport
from celery_memory_exporter.common.traffic import Counts
from celery_memory_exporter.fleet.capping import capped
from celery_memory_exporter.fleet.facts import (
    Identity,
    QueueReading,
    SharedMemory,
    WorkerFacts,
    WorkerProcesses,
)
from celery_memory_exporter.fleet.groups import NEW_REPORTS, GroupBook
from celery_memory_exporter.fleet.queues import QueueBook
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.senders import SentBook
from celery_memory_exporter.fleet.snapshot import Snapshot, SourceView, WorkerView
from celery_memory_exporter.fleet.task_events import TaskEvents, is_task_event
from celery_memory_exporter.fleet.worker import WorkerState
from celery_memory_exporter.fleet.worker_tasks import WorkerTasks

#: How long the process table holds without a new reading, in seconds: six of its default intervals.
TABLE_FRESH_SECONDS = 30.0
#: How often to look for room where there is none.
FORGET_SECONDS = 1.0
#: Events that show that a worker lives, or that it no longer does.
HEARTBEATS = ("worker-online", "worker-heartbeat", "worker-offline")
#: Of workers that nobody has heard of at any of several brokers, and the name of the only one where
#: it has none.
SOLE = ""


class Fleet:
    """Thread-safe. ``queues``: names that are watched from the start, by broker; each broker is in
    there."""

    def __init__(self, rules: Rules, queues: Mapping[str, Iterable[str]] | None = None) -> None:
        brokers = queues or {SOLE: ()}
        limits = rules.limits
        self._rules = rules
        self._brokers = tuple(brokers)
        self._lock = threading.Lock()
        self._workers: dict[tuple[str, str], WorkerState] = {}
        self._table_at: float | None = None
        self._shared: dict[Identity, SharedMemory] = {}
        self._task_events = TaskEvents(
            tasks_in_flight=limits.tasks_in_flight, default_name=rules.default_name
        )
        self._sent = SentBook(
            limits, senders=rules.senders, expire_after_seconds=rules.expire_after_seconds
        )
        self._groups = GroupBook(rules.worker_groups)
        self._queues = QueueBook(
            brokers,
            max_queues=limits.queues * len(brokers),
            expire_after_seconds=rules.expire_after_seconds,
        )
        self._sources: dict[str, SourceView] = {}
        self._received = 0
        self._rejected: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self._events: Counter[str] = Counter()
        self._lag: float | None = None
        self._reconnects = 0
        self._dropped: Counter[str] = Counter()
        #: When it was last looked for workers to forget.
        self._forgot = float("-inf")

    # --- writing ---------------------------------------------------------------------------------

    def apply_report(self, report: WorkerReport, now: float, broker: str = SOLE) -> str | None:
        """Takes a decoded report; the answer is the reason when it is refused."""
        with self._lock:
            self._received += 1
            worker = self._admit(broker, report.worker, now)
            refused = "capacity" if worker is None else _refusal(worker.report, report)
            if refused is not None or worker is None:
                self._rejected[refused or "capacity"] += 1
                return refused
            new = worker.report is None or worker.report.instance != report.instance
            before = self._counters(worker, now) if new else None
            worker.report, dropped = capped(report, worker.admitted, self._rules.limits)
            self._dropped.update(dropped)
            worker.reported = worker.seen = now
            worker.offline = bool(report.final)
            if new:
                self._join(worker, before, now)
            self._see_queues(worker, now)
            return None

    def reject_report(self, reason: str) -> None:
        """Counts a report that could not be decoded."""
        with self._lock:
            self._received += 1
            self._rejected[reason] += 1

    def apply_worker_event(
        self,
        nodename: str,
        kind: str,
        active: int | None,
        now: float,
        *,
        processed: int | None = None,
        broker: str = SOLE,
    ) -> None:
        """``kind`` is the event type: one of ``HEARTBEATS`` or another, which tells nothing."""
        if kind not in HEARTBEATS:
            return
        with self._lock:
            worker = self._admit(broker, nodename, now)
            if worker is None:
                return
            worker.seen = now
            worker.offline = kind == "worker-offline"
            worker.heartbeat = None if worker.offline else now
            if worker.offline or active is not None:  # one that somebody asked for has no figures
                worker.active_tasks = None if worker.offline else active
            if worker.reporting(now):
                worker.tasks.mute()
            elif processed is not None:
                self._task_events.beat(worker.tasks, processed, active, now)
            self._see_queues(worker, now)

    def apply_task_event(
        self, kind: str, event: dict[str, Any], now: float, broker: str = SOLE
    ) -> None:
        """``event`` has a hostname, which is a client's for ``task-sent`` and else a worker's
        nodename."""
        with self._lock:
            hostname = event["hostname"]
            if kind == "task-sent":
                self._apply_sent(event, now, broker)
                return
            if not is_task_event(kind):
                return
            worker = self._admit(broker, hostname, now)
            if worker is None:
                return
            if worker.reporting(now):
                self._task_events.skip(kind, event)
                return
            worker.seen = now
            self._task_events.apply(worker.tasks, kind, event, worker.sole_queue(), now)

    def apply_processes(self, table: Iterable[WorkerProcesses], now: float) -> None:
        """Replaces what the process table told before."""
        with self._lock:
            self._table_at = now
            guessed = {
                key: worker.table.main.identity
                for key, worker in self._workers.items()
                if worker.table
            }
            for worker in self._workers.values():
                worker.table = None
            named: dict[Identity, tuple[str, str]] = {}
            for (broker, nodename), processes in self._named(list(table)):
                shown = self._admit(broker, nodename, now)
                if shown is not None:
                    shown.seen = now
                    shown.take_table(processes)
                    named[processes.main.identity] = (broker, nodename)
            self._forget_guesses(
                key for key, identity in guessed.items() if named.get(identity, key) != key
            )

    def apply_shared_memory(self, shared: dict[Identity, SharedMemory]) -> None:
        """Replaces all PSS and USS figures, which come at their own slow pace."""
        with self._lock:
            self._shared = shared

    def apply_queues(self, broker: str, readings: Iterable[QueueReading], now: float) -> None:
        """Replaces what this broker told of its queues before; nothing where it could not be
        asked."""
        with self._lock:
            self._queues.apply(broker, readings, now)

    def apply_inspection(self, broker: str, facts: Mapping[str, WorkerFacts], now: float) -> None:
        """What workers without an agent answered. One that did not answer keeps what it said
        before."""
        with self._lock:
            for nodename, told in facts.items():
                worker = self._admit(broker, nodename, now)
                if worker is not None:
                    worker.seen = now
                    worker.learn(told, self._rules.default_name)
                    self._see_queues(worker, now)

    def apply_event(self, group: str, lag: float | None) -> None:
        """Counts an event of any kind; ``lag`` is how long it took here by the sender's clock."""
        with self._lock:
            if (
                group not in self._events
                and len(self._events) >= self._rules.limits.object_types_per_worker
            ):
                group = OTHER
            self._events[group] += 1
            if lag is not None:
                self._lag = lag

    def apply_source(
        self,
        name: str,
        *,
        up: bool,
        duration: float | None = None,
        denied: Mapping[str, bool] | None = None,
    ) -> None:
        """``denied``: of what the kernel may keep from this source, whether it does."""
        with self._lock:
            self._sources[name] = SourceView(up, duration, dict(denied or {}))

    def apply_reconnect(self) -> None:
        with self._lock:
            self._reconnects += 1

    # --- reading ---------------------------------------------------------------------------------

    def queue_names(self, broker: str, now: float) -> list[str]:
        """The queues to ask this broker about."""
        with self._lock:
            self._queues.forget(now)
            return self._queues.names(broker)

    def without_agent(self, broker: str, now: float) -> set[str]:
        """Nodenames of the workers that live and have no agent: they have to be asked."""
        with self._lock:
            timeout = self._rules.heartbeat_timeout_seconds
            workers = [
                worker
                for (each, _), worker in self._workers.items()
                if each == broker and worker.report is None
            ]
            return {worker.nodename for worker in workers if worker.beating(now, timeout)}

    def sent_at(self, uuid: str) -> float | None:
        """Unix time at which a client sent the task, if it told, and the task is not done."""
        with self._lock:
            return self._task_events.sent_at(uuid)

    def snapshot(self, now: float) -> Snapshot:
        """What is believed at ``now``; workers that have been silent for too long are forgotten
        first."""
        with self._lock:
            self._forget(now)
            workers = [worker for _, worker in sorted(self._workers.items())]
            views = [self._view(worker, now) for worker in workers]
            consumers = _consumers(
                worker for worker, view in zip(workers, views, strict=True) if view.up
            )
            dropped = self._dropped + Counter(
                {
                    "celery_task_received_total": sum(
                        worker.tasks.counts.folded for worker in workers
                    ),
                    "celery_task_sent_total": self._sent.folded,
                }
            )
            return Snapshot(
                workers=(*views, *self._groups.views()),
                sources=dict(self._sources),
                queues=self._queues.views(consumers),
                sent=self._sent.views(),
                several_brokers=len(self._brokers) > 1,
                reports_received=self._received,
                reports_rejected=dict(self._rejected),
                events_received=dict(self._events),
                events_ignored=dict(self._task_events.ignored),
                tasks_in_flight=len(self._task_events),
                event_lag_seconds=self._lag,
                broker_reconnects=self._reconnects,
                dropped=dict(dropped),
            )

    # --- parts -----------------------------------------------------------------------------------

    def _admit(self, broker: str, nodename: str, now: float) -> WorkerState | None:
        worker = self._workers.get((broker, nodename))
        if worker is None:
            limits = self._rules.limits
            if len(self._workers) >= limits.workers and now - self._forgot >= FORGET_SECONDS:
                self._forget(now)  # maybe nobody has scraped for long
            if len(self._workers) >= limits.workers:
                self._dropped["celery_worker_info"] += 1
                return None
            counts = Counts(
                max_tasks=limits.tasks_per_worker,
                max_exceptions=limits.exceptions_per_task,
                runtime=self._rules.runtime_seconds,
                queue_wait=self._rules.queue_wait_seconds,
            )
            self._workers.pop((SOLE, nodename), None)  # it was seen before it was heard
            worker = self._workers[broker, nodename] = WorkerState(
                nodename, broker, now, WorkerTasks(counts)
            )
            worker.group = self._groups.of(broker, nodename)
            if worker.group is not None:
                worker.admitted = worker.group.admitted
        return worker

    def _join(self, worker: WorkerState, before: WorkerView | None, now: float) -> None:
        """A member of a group reports for the first time: what was counted ``before`` goes on in
        the group, and what it has been counting all the while does not begin in it."""
        if worker.group is None or worker.report is None:
            return
        if before is not None:
            worker.group.keep(before, self._rules.limits)
        if worker.report.sequence > NEW_REPORTS or (before is not None and before.report is None):
            worker.group.keep(self._view(worker, now), self._rules.limits, sign=-1)

    def _counters(self, worker: WorkerState, now: float) -> WorkerView | None:
        """What a member of a group has counted, while it is still known."""
        counted = worker.report is not None or worker.tasks.known
        return self._view(worker, now) if worker.group is not None and counted else None

    def _view(self, worker: WorkerState, now: float) -> WorkerView:
        table_holds = self._table_at is not None and now - self._table_at <= TABLE_FRESH_SECONDS
        in_table = table_holds and worker.table is not None
        return worker.view(
            now,
            in_table=in_table,
            timeout=self._rules.heartbeat_timeout_seconds,
            shared=self._shared,
        )

    def _forget_guesses(self, renamed: Iterable[tuple[str, str]]) -> None:
        """Names whose process has another one now, because its agent has told it: from outside, a
        container's hostname may not be read. Nobody else ever had them."""
        for key in renamed:
            worker = self._workers.get(key)
            if worker is not None and worker.only_seen():
                del self._workers[key]

    def _forget(self, now: float) -> None:
        self._forgot = now
        expire_after = self._rules.expire_after_seconds
        gone = {
            key: worker for key, worker in self._workers.items() if now - worker.seen > expire_after
        }
        if gone:
            self._task_events.forget(*(worker.tasks for worker in gone.values()))
        for key, worker in list(self._workers.items()):
            if key in gone:
                self._leave(worker, now)
                del self._workers[key]
            elif worker.report is not None and now - worker.reported > expire_after:
                self._keep(worker, now)
                worker.report = None  # it goes on without its agent
        self._groups.forget(
            {
                (worker.broker, worker.group.name)
                for worker in self._workers.values()
                if worker.group
            }
        )
        self._sent.forget(now)
        self._queues.forget(now)

    def _leave(self, worker: WorkerState, now: float) -> None:
        self._dropped["celery_task_received_total"] += worker.tasks.counts.folded
        self._keep(worker, now)

    def _keep(self, worker: WorkerState, now: float) -> None:
        counters = self._counters(worker, now)
        if worker.group is not None and counters is not None:
            worker.group.keep(counters, self._rules.limits)

    def _apply_sent(self, event: dict[str, Any], now: float, broker: str) -> None:
        name, queue = event.get("name"), event.get("queue")
        if not isinstance(name, str):
            self._task_events.ignored["malformed"] += 1
            return
        name = printable(name)
        known = printable(queue) if isinstance(queue, str) and queue else self._rules.default_name
        self._sent.add(broker, name, event["hostname"], known, now)
        if not self._queues.see(broker, known, now):
            self._dropped["celery_queue_length"] += 1
        # Where all workers have agents, nobody would tell that the task is done.
        if not self._workers or any(worker.report is None for worker in self._workers.values()):
            self._task_events.send(event)

    def _see_queues(self, worker: WorkerState, now: float) -> None:
        for queue in worker.consumed():
            if not self._queues.see(worker.broker, queue, now):
                self._dropped["celery_queue_length"] += 1

    def _named(
        self, table: list[WorkerProcesses]
    ) -> Iterable[tuple[tuple[str, str], WorkerProcesses]]:
        """Each worker of the table with the name that its own agent gives it, else the one on its
        command line.

        A command line's name that another worker has is numbered: two workers of one host stay
        apart even when they were started with the same name, and a worker on another machine keeps
        its own.
        """
        boot_id = self._rules.boot_id
        taken = {
            key
            for key, worker in self._workers.items()
            if worker.report and worker.report.instance.boot_id != boot_id
        }
        unnamed = []
        for processes in table:
            key = self._reported_key(processes)
            if key is None:
                unnamed.append(processes)
            else:
                taken.add(key)
                yield key, processes
        for processes in unnamed:
            broker = self._broker_of(processes.nodename)
            numbered = (f"{processes.nodename}#{number}" for number in range(2, len(taken) + 3))
            name = next(
                name for name in [processes.nodename, *numbered] if (broker, name) not in taken
            )
            taken.add((broker, name))
            yield (broker, name), processes

    def _broker_of(self, nodename: str) -> str:
        """The broker at which a worker of that name was heard; the empty one where none or several
        were."""
        if len(self._brokers) == 1:
            return self._brokers[0]
        brokers = [broker for broker, name in self._workers if name == nodename and broker != SOLE]
        return brokers[0] if len(brokers) == 1 else SOLE

    def _reported_key(self, processes: WorkerProcesses) -> tuple[str, str] | None:
        for key, worker in self._workers.items():
            if worker.report is not None and self._is_main(worker.report, processes):
                return key
        return None

    def _is_main(self, report: WorkerReport, processes: WorkerProcesses) -> bool:
        told = report.instance
        identity = processes.main.identity
        return told.boot_id == self._rules.boot_id and identity.matches(
            told.pid, told.start_ticks, told.pid_namespace
        )


def _consumers(workers: Iterable[WorkerState]) -> dict[tuple[str, str], tuple[int, int]]:
    """By broker and queue: how many of the workers consume it, and with how many processes."""
    consumers: dict[tuple[str, str], tuple[int, int]] = {}
    for worker in workers:
        for queue in worker.consumed():
            count, processes = consumers.get((worker.broker, queue), (0, 0))
            consumers[worker.broker, queue] = count + 1, processes + worker.pool_processes()
    return consumers


def _refusal(held: WorkerReport | None, new: WorkerReport) -> str | None:
    """Why a report must not replace the one that is held, if so."""
    if held is None:
        return None
    if held.instance == new.instance:
        if new.sequence == held.sequence:
            return "duplicate"
        return "stale" if new.sequence < held.sequence else None
    return "stale" if new.instance.started_at < held.instance.started_at else None
