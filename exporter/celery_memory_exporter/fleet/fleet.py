"""What we believe about all workers now: out of agents' reports, Celery's events, the local process
table, and what brokers tell.

``apply_…(…, now)`` writes, everything else reads and changes nothing; no I/O and no clock in here.
``now`` is monotonic seconds at receipt: a sender's clock never decides anything, save which of two
runs of one worker is the later.

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
  counters until it has been silent for ``expire_after_seconds``, and then nothing. What is not
  shown any more is forgotten at the next writing;
* whatever is keyed from outside has a limit, and hitting it is counted in ``dropped``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any

from celery_memory_exporter.common.names import printable
from celery_memory_exporter.common.report import WorkerReport
from celery_memory_exporter.fleet.capping import capped
from celery_memory_exporter.fleet.facts import (
    Identity,
    QueueReading,
    SharedMemory,
    WorkerFacts,
    WorkerProcesses,
)
from celery_memory_exporter.fleet.matching import UNKNOWN_BROKER
from celery_memory_exporter.fleet.own_counters import OwnCounters
from celery_memory_exporter.fleet.queues import Queues
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.senders import Senders
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.fleet.task_events import HEARTBEATS, TaskEvents, is_task_event
from celery_memory_exporter.fleet.worker import WorkerState
from celery_memory_exporter.fleet.workers import Workers, consumers, refusal

#: How often a writing looks for what to forget: it looks at all workers.
FORGET_SECONDS = 1.0


class Fleet:
    """Thread-safe. ``queues``: names that are watched from the start, by broker; each broker is in
    there. ``began``: since when reports are heard; by default no worker is known to be younger."""

    def __init__(
        self, rules: Rules, queues: Mapping[str, Iterable[str]] | None = None, began: float = inf
    ) -> None:
        watched = queues or {UNKNOWN_BROKER: ()}
        self._rules = rules
        self._brokers = tuple(watched)
        self._lock = threading.Lock()
        self._workers = Workers(rules, self._brokers, began)
        self._shared: dict[Identity, SharedMemory] = {}
        self._task_events = TaskEvents(
            tasks_in_flight=rules.limits.tasks_in_flight, default_name=rules.default_name
        )
        self._senders = Senders(rules)
        self._queues = Queues(rules, watched)
        self._own = OwnCounters(max_groups=rules.limits.object_types_per_worker)
        #: When it was last looked for what to forget.
        self._forgot = float("-inf")

    # --- writing ---------------------------------------------------------------------------------

    def apply_report(
        self,
        report: WorkerReport,
        now: float,
        broker: str = UNKNOWN_BROKER,
        age: float | None = None,
    ) -> str | None:
        """Takes a decoded report; the answer is the reason when it is refused. ``age``: for how
        many seconds the worker had been there when it sent it, by its own clock."""
        with self._lock:
            self._forget(now)
            worker = self._admit(broker, report.worker, now)
            refused = "capacity" if worker is None else refusal(worker.report, report)
            self._own.count_report(refused)
            if worker is not None and refused is None:
                shown, dropped = capped(report, worker.admitted, self._rules.limits)
                self._own.dropped.update(dropped)
                self._workers.take_report(worker, shown, now, age)
                self._see_queues(worker, now)
            return refused

    def reject_report(self, reason: str) -> None:
        """Counts a report that could not be decoded."""
        with self._lock:
            self._own.count_report(reason)

    def apply_worker_event(
        self,
        nodename: str,
        kind: str,
        active: int | None,
        now: float,
        *,
        processed: int | None = None,
        broker: str = UNKNOWN_BROKER,
    ) -> None:
        """``kind`` is the event type: one of ``HEARTBEATS`` or another, which tells nothing."""
        if kind not in HEARTBEATS:
            return
        with self._lock:
            self._forget(now)
            worker = self._admit(broker, nodename, now)
            if worker is None:
                return
            worker.beat(active, now, offline=kind == "worker-offline")
            if worker.reporting(now):
                worker.tasks.mute()
            elif processed is not None:
                self._task_events.beat(worker.tasks, processed, active, now)
            self._see_queues(worker, now)

    def apply_task_event(
        self, kind: str, event: dict[str, Any], now: float, broker: str = UNKNOWN_BROKER
    ) -> None:
        """``event`` has a hostname, which is a client's for ``task-sent`` and else a worker's
        nodename."""
        with self._lock:
            self._forget(now)
            if kind == "task-sent":
                self._apply_sent(event, now, broker)
                return
            if not is_task_event(kind):
                return
            worker = self._admit(broker, event["hostname"], now)
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
            self._forget(now)
            self._own.dropped["celery_worker_info"] += self._workers.take_table(table, now)

    def apply_shared_memory(self, shared: dict[Identity, SharedMemory]) -> None:
        """Replaces all PSS and USS figures, which come at their own slow pace."""
        with self._lock:
            self._shared = shared

    def apply_queues(self, broker: str, readings: Iterable[QueueReading], now: float) -> None:
        """Replaces what this broker told of its queues before; nothing where it could not be
        asked."""
        with self._lock:
            self._forget(now)
            self._queues.apply(broker, readings, now)

    def apply_inspection(self, broker: str, facts: Mapping[str, WorkerFacts], now: float) -> None:
        """What workers without an agent answered. One that did not answer keeps what it said
        before."""
        with self._lock:
            self._forget(now)
            for nodename, told in facts.items():
                worker = self._admit(broker, nodename, now)
                if worker is not None:
                    worker.seen = now
                    worker.learn(told, self._rules.default_name)
                    self._see_queues(worker, now)

    def apply_event(self, group: str, lag: float | None) -> None:
        """Counts an event of any kind; ``lag`` is how long it took here by the sender's clock."""
        with self._lock:
            self._own.count_event(group, lag)

    def apply_source(
        self,
        name: str,
        *,
        up: bool,
        duration: float | None = None,
        denied: Mapping[str, bool] | None = None,
    ) -> None:
        """How a source is doing. ``denied``: by kind of access, whether the kernel refuses it."""
        with self._lock:
            self._own.note_source(name, up=up, duration=duration, denied=denied or {})

    def apply_reconnect(self) -> None:
        """Counts a connection to a broker that was lost."""
        with self._lock:
            self._own.broker_reconnects += 1

    # --- reading ---------------------------------------------------------------------------------

    def queue_names(self, broker: str, now: float) -> list[str]:
        """The queues to ask this broker about."""
        with self._lock:
            return self._queues.names(broker, now)

    def without_agent(self, broker: str, now: float) -> set[str]:
        """Nodenames of the workers that live and have no agent: they have to be asked."""
        timeout = self._rules.heartbeat_timeout_seconds
        with self._lock:
            return {
                worker.nodename
                for worker in self._workers.at(now)
                if worker.broker == broker
                and worker.report is None
                and worker.beating(now, timeout)
            }

    def sent_at(self, uuid: str) -> float | None:
        """Unix time at which a client sent the task, if it told, and the task is not done."""
        with self._lock:
            return self._task_events.sent_at(uuid)

    def snapshot(self, now: float) -> Snapshot:
        """What is believed at ``now``, without what has been silent for too long by then."""
        with self._lock:
            workers = self._workers.at(now)
            views = [self._workers.view(worker, now, self._shared) for worker in workers]
            up = (worker for worker, view in zip(workers, views, strict=True) if view.up)
            silent = sum(worker.tasks.in_flight for worker in self._workers.silent(now))
            own = self._own
            return Snapshot(
                groups=self._workers.group_views(views, now),
                queues=self._queues.views(consumers(up), now),
                sent=self._senders.views(now),
                several_brokers=len(self._brokers) > 1,
                sources=dict(own.sources),
                reports_received=own.reports_received,
                reports_rejected=dict(own.reports_rejected),
                events_received=dict(own.events_received),
                events_ignored=dict(self._task_events.ignored),
                tasks_in_flight=len(self._task_events) - silent,
                event_lag_seconds=own.event_lag_seconds,
                broker_reconnects=own.broker_reconnects,
                dropped=self._dropped(),
            )

    # --- parts -----------------------------------------------------------------------------------

    def _admit(self, broker: str, nodename: str, now: float) -> WorkerState | None:
        worker = self._workers.admit(broker, nodename, now)
        if worker is None:
            self._own.dropped["celery_worker_info"] += 1
        return worker

    def _forget(self, now: float) -> None:
        """Makes room: what reading no longer shows is not kept either."""
        if now - self._forgot < FORGET_SECONDS:
            return
        self._forgot = now
        gone = self._workers.forget(now)
        if gone:
            self._task_events.forget(*(worker.tasks for worker in gone))
        for worker in gone:
            self._own.dropped["celery_task_received_total"] += worker.tasks.counts.folded
        self._senders.forget(now)
        self._queues.forget(now)

    def _apply_sent(self, event: dict[str, Any], now: float, broker: str) -> None:
        name, queue = event.get("name"), event.get("queue")
        if not isinstance(name, str):
            self._task_events.ignored["malformed"] += 1
            return
        name = printable(name)
        known = printable(queue) if isinstance(queue, str) and queue else self._rules.default_name
        self._senders.add(broker, name, event["hostname"], known, now)
        self._see_queue(broker, known, now)
        # Where all workers have agents, nobody would tell that the task is done.
        if not self._workers.all_have_agents:
            self._task_events.send(event)

    def _see_queues(self, worker: WorkerState, now: float) -> None:
        for queue in worker.consumed():
            self._see_queue(worker.broker, queue, now)

    def _see_queue(self, broker: str, queue: str, now: float) -> None:
        if not self._queues.see(broker, queue, now):
            self._own.dropped["celery_queue_length"] += 1

    def _dropped(self) -> dict[str, int]:
        """What limits have kept out, of workers that are known and of those forgotten."""
        folded = {
            "celery_task_received_total": sum(each.tasks.counts.folded for each in self._workers),
            "celery_task_sent_total": self._senders.folded,
        }
        return dict(self._own.dropped + Counter(folded))
