"""Tasks of workers without an agent, out of their events (``-E``), and of what clients send: what
is in flight, until it is done.

Celery's events name a task only when it is sent and received; later ones have its uuid alone. So
what is in flight is remembered, and nothing else: an entry goes with the task's last event. Rules:

* events may be lost, repeated, late, or lack fields: what cannot be counted is counted in
  ``ignored``, by why;
* a run that ended before its ``task-started`` came is remembered a little longer for it, and one
  that failed by what rejects its message as well (``Reject``, a time limit) for its
  ``task-rejected``;
* a task that is retried is not done;
* what is remembered has a limit, and the oldest goes first.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from celery_memory_exporter.common.message_times import unix_time
from celery_memory_exporter.common.names import short_name
from celery_memory_exporter.common.traffic import COUNTERS, exception_class
from celery_memory_exporter.fleet.worker_tasks import Task, WorkerTasks

#: Events that show that a worker lives, or that it no longer does.
HEARTBEATS = ("worker-online", "worker-heartbeat", "worker-offline")
MAX_UUID_LENGTH = 255
#: Tasks that are done, with an event still to come.
MAX_LATE = 10_000
ENDS = frozenset({"task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked"})
#: Ends of tasks that have started, even if nobody told.
RAN = frozenset({"task-succeeded", "task-failed"})
#: Failures that a ``task-rejected`` may follow.
REJECTING = frozenset({"Reject", "TimeLimitExceeded"})
#: Events that may still come for a task that is done.
MAY_FOLLOW = frozenset({"task-rejected", "task-failed"})
#: Why an event was not counted. ``evicted`` is a task that was forgotten because too many were in
#: flight; ``repeated`` is a second failure of one run, as Celery tells of hard time limits.
IGNORED = ("malformed", "unknown_task", "evicted", "repeated")


class TaskEvents:
    """What is in flight, of all workers without an agent: ``tasks_in_flight`` at most.
    ``default_name`` is the queue's where nothing tells it."""

    def __init__(self, *, tasks_in_flight: int, default_name: str) -> None:
        self.ignored: Counter[str] = Counter(dict.fromkeys(IGNORED, 0))
        self._limit = tasks_in_flight
        self._default_name = default_name
        self._tasks: dict[str, Task] = {}
        #: Sent, and not received yet, maybe by a worker with an agent, which does not tell: so they
        #: have room of their own.
        self._sent: dict[str, Task] = {}
        self._late: dict[str, Task] = {}

    def __len__(self) -> int:
        return len(self._tasks) + len(self._sent)

    def sent_at(self, uuid: str) -> float | None:
        """Unix time by the client's clock, of a task that is in flight."""
        task = self._tasks.get(uuid) or self._sent.get(uuid)
        return task.sent if task is not None else None

    def send(self, event: dict[str, Any]) -> None:
        """A client's ``task-sent``: it alone tells the queue, and when waiting began."""
        uuid, name = uuid_of(event), event.get("name")
        if uuid is None or not isinstance(name, str):
            return
        task = self._tasks.get(uuid)
        if task is None:
            task = self._sent[uuid] = Task(name, None)
            self._bound(self._sent)
        task.queue = queue_of(event) or task.queue
        task.sent = number_of(event.get("timestamp"))
        task.due = unix_time(event.get("eta")) or task.due

    def apply(
        self,
        worker: WorkerTasks,
        kind: str,
        event: dict[str, Any],
        sole_queue: str | None,
        now: float,
    ) -> None:
        """One event of a task from a worker. ``sole_queue`` is the one that it consumes, if it is
        only one."""
        uuid = uuid_of(event)
        if uuid is None:
            self.ignored["malformed"] += 1
            return
        worker.hear(kind)
        task = self._find(worker, kind, uuid, event, now)
        if task is None:
            self.ignored["malformed" if kind == "task-received" else "unknown_task"] += 1
            return
        if kind == "task-failed":
            if task.failed:
                self.ignored["repeated"] += 1
                return
            task.failed = True
        queue = task.queue or sole_queue or self._default_name
        worker.counts.count(kind, task.name, queue, event)
        if kind == "task-started":
            self._observe_wait(worker, task, queue, event)
        if kind in ENDS and self._tasks.get(uuid) is task:
            rejecting = (
                kind == "task-failed"
                and exception_class(event.get("exception"), event.get("traceback")) in REJECTING
            )
            self._end(worker, kind, uuid, task, rejecting=rejecting)

    def beat(self, worker: WorkerTasks, processed: int, active: int | None, now: float) -> None:
        """A heartbeat of a worker without an agent."""
        if worker.beat(processed):
            self.forget(worker)
        for uuid in worker.surplus(active, now) if active is not None else ():
            self._drop(uuid, worker)

    def skip(self, kind: str, event: dict[str, Any]) -> None:
        """An event of a worker with an agent: it is only looked at to forget what a client sent."""
        if kind in ENDS and kind != "task-retried":
            self._sent.pop(uuid_of(event) or "", None)

    def forget(self, *workers: WorkerTasks) -> None:
        """The workers are gone, and what they had. Of all at once: it looks at all that is in
        flight."""
        gone = set(workers)
        for uuid in [uuid for uuid, task in self._tasks.items() if task.owner in gone]:
            del self._tasks[uuid]
        for worker in workers:
            worker.running.clear()
            worker.prefetched = 0

    # --- parts -----------------------------------------------------------------------------------

    def _find(
        self, worker: WorkerTasks, kind: str, uuid: str, event: dict[str, Any], now: float
    ) -> Task | None:
        """The task, as it is after this event of its beginning."""
        task = self._tasks.get(uuid)
        if task is None and uuid in self._sent:
            task = self._tasks[uuid] = self._sent.pop(uuid)
            self._bound(self._tasks)
        if kind == "task-received":
            return self._receive(worker, uuid, task, event)
        if kind == "task-started":
            return self._start(worker, uuid, task, now)
        return self._late.get(uuid) if task is None and kind in MAY_FOLLOW else task

    def _observe_wait(
        self, worker: WorkerTasks, task: Task, queue: str, event: dict[str, Any]
    ) -> None:
        """How long it waited to be started, from when it was sent or due. If it is retried, it
        waits anew."""
        if task.sent is None:
            return
        began = number_of(event.get("timestamp"))
        if began is not None:
            waited = max(0.0, began - max(task.sent, task.due or 0.0))
            worker.counts.totals(task.name, queue).queue_wait.observe(waited)
        task.sent = task.due = None

    def _bound(self, tasks: dict[str, Task]) -> None:
        """The oldest one goes."""
        if len(tasks) > self._limit:
            oldest = next(iter(tasks))
            self._leave(oldest, tasks.pop(oldest))
            self.ignored["evicted"] += 1

    def _receive(
        self, worker: WorkerTasks, uuid: str, task: Task | None, event: dict[str, Any]
    ) -> Task | None:
        """Also of a task that is retried, whose next run may be received before this one has ended,
        and of one that is replaced."""
        name = event.get("name")
        if task is None:
            if not isinstance(name, str):
                return None
            task = self._tasks[uuid] = Task(name, None)
            self._bound(self._tasks)
        self._leave(uuid, task)
        if isinstance(name, str):
            task.name = short_name(name)
        task.due = unix_time(event.get("eta")) or task.due
        task.owner, task.started, task.failed = worker, False, False
        worker.prefetched += 1
        return task

    def _start(self, worker: WorkerTasks, uuid: str, task: Task | None, now: float) -> Task | None:
        if task is None:
            return self._late.pop(uuid, None)
        self._leave(uuid, task)
        task.owner, task.started = worker, True
        worker.running[uuid] = (task.name, now)
        return task

    def _end(
        self, worker: WorkerTasks, kind: str, uuid: str, task: Task, *, rejecting: bool
    ) -> None:
        worker.end(task.name)
        worker.running.pop(uuid, None)
        if task.owner not in (worker, None) or (kind == "task-retried" and not task.started):
            return  # its next run has been received
        self._leave(uuid, task)
        if kind == "task-retried":
            task.owner, task.started = None, False
            return
        del self._tasks[uuid]
        if rejecting or kind == "task-rejected" or (not task.started and kind in RAN):
            task.owner = None
            self._late[uuid] = task
            if len(self._late) > MAX_LATE:
                del self._late[next(iter(self._late))]

    def _drop(self, uuid: str, worker: WorkerTasks) -> None:
        del worker.running[uuid]
        task = self._tasks.get(uuid)
        if task is not None and task.owner is worker:
            del self._tasks[uuid]

    @staticmethod
    def _leave(uuid: str, task: Task) -> None:
        """The task is no longer its owner's."""
        if task.owner is not None:
            task.owner.running.pop(uuid, None)
            if not task.started:
                task.owner.prefetched -= 1


def is_task_event(kind: str) -> bool:
    return kind in COUNTERS or kind == "task-failed"


def uuid_of(event: dict[str, Any]) -> str | None:
    uuid = event.get("uuid")
    return uuid if isinstance(uuid, str) and 1 <= len(uuid) <= MAX_UUID_LENGTH else None


def queue_of(event: dict[str, Any]) -> str | None:
    queue = event.get("queue")
    return short_name(queue) if isinstance(queue, str) and queue else None


def number_of(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e12 else None
