"""Tasks of workers without an agent, out of their events (``-E``), and of what clients send: what is in flight, until it is done.

Celery's events name a task only when it is sent and received; later ones have its uuid alone. So what is in flight is remembered,
and nothing else: an entry goes with the task's last event. Rules:

* events may be lost, repeated, late, or lack fields: what cannot be counted is counted in ``ignored``, by why;
* a run that ended before its ``task-started`` came is remembered a little longer for it, and one that failed by what rejects its
  message as well (``Reject``, a time limit) for its ``task-rejected``;
* a task that is retried is not done;
* what is remembered has a cap, and the oldest goes first;
* how many events did not get here is told by the worker itself: its heartbeats count the tasks that it started.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timezone
from typing import Any

from celery_memory_exporter.report import Running
from celery_memory_exporter.traffic import COUNTERS, Counts, exception_class

MAX_UUID_LENGTH = 255
#: Tasks that are done, with an event still to come.
MAX_LATE = 10_000
ENDS = frozenset({"task-succeeded", "task-failed", "task-retried", "task-rejected", "task-revoked"})
#: Ends of tasks that have started, even if nobody told.
RAN = frozenset({"task-succeeded", "task-failed"})
#: Exceptions after which Celery may reject the message, and ends after which it may say so, or that the task failed.
REJECTING = frozenset({"Reject", "TimeLimitExceeded"})
MAY_FOLLOW = frozenset({"task-rejected", "task-failed"})
#: Why an event was not counted. ``evicted`` is a task that was forgotten because too many were in flight; ``repeated`` is a second
#: failure of one run, as Celery tells of hard time limits.
IGNORED = ("malformed", "unknown_task", "evicted", "repeated")
#: A heartbeat without active tasks ends those that began so long before: their last events were lost.
SETTLED_SECONDS = 5.0
LONG_FRACTION = re.compile(r"(\.\d{6})\d+")


class Task:
    """One task that is not done."""

    __slots__ = ("due", "failed", "name", "owner", "queue", "sent", "started")

    def __init__(self, name: str, queue: str | None) -> None:
        self.name = name
        self.queue = queue
        #: Unix times by the senders' clocks.
        self.sent: float | None = None
        self.due: float | None = None
        #: Who received it last, and whether it started there.
        self.owner: WorkerTasks | None = None
        self.started = False
        self.failed = False


class WorkerTasks:
    """What one worker's task events add up to."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        #: Task name and start, in monotonic seconds, by uuid.
        self.running: dict[str, tuple[str, float]] = {}
        self.prefetched = 0
        #: Runs that ended since somebody took them, by task name.
        self.ended: Counter[str] = Counter()
        #: Whether the worker sends task events at all.
        self.talks = False
        #: ``task-started`` that came since the worker's own count of started tasks was ``_from``; what its last heartbeat said.
        self._came = 0
        self._from: int | None = None
        self._last: int | None = None
        self._lost = self._lost_before = 0

    @property
    def lost(self) -> int | None:
        """Started tasks whose events did not get here; ``None`` where nothing tells."""
        return self._lost_before + self._lost if self.talks and self._last is not None else None

    def hear(self, kind: str) -> None:
        """An event came, whatever it is worth."""
        if not self.talks:
            self.talks = True
            self._from, self._came = self._last, 0
        if kind == "task-started":
            self._came += 1

    def beat(self, processed: int, active: int | None, now: float) -> None:
        """A heartbeat. Workers send events in batches, so what the heartbeat before this one counted must be here by now."""
        if self._last is None or self._from is None or processed < self._last:
            restarted = self._last is not None and processed < self._last
            self._lost, self._lost_before = 0, self._lost_before + self._lost
            self._from, self._came = 0 if restarted else processed, 0
        elif self.talks:
            self._lost = max(self._lost, self._last - self._from - self._came)
        self._last = processed
        if active == 0:
            self.running = {uuid: run for uuid, run in self.running.items() if now - run[1] <= SETTLED_SECONDS}

    def tell_running(self, now: float) -> list[Running]:
        counts: Counter[str] = Counter()
        oldest: dict[str, float] = {}
        for name, started in self.running.values():
            counts[name] += 1
            oldest[name] = max(oldest.get(name, 0.0), now - started)
        return [Running(name, counts[name], oldest[name]) for name in sorted(counts)]


class TaskEvents:
    """What is in flight, of all workers without an agent. ``default_queue`` names the queue where nothing tells it."""

    def __init__(self, *, max_in_flight: int, default_queue: str) -> None:
        self.ignored: Counter[str] = Counter(dict.fromkeys(IGNORED, 0))
        self._max_in_flight = max_in_flight
        self._default_queue = default_queue
        self._tasks: dict[str, Task] = {}
        self._late: dict[str, Task] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def sent_at(self, uuid: str) -> float | None:
        """Unix time by the client's clock, of a task that is in flight."""
        task = self._tasks.get(uuid)
        return task.sent if task is not None else None

    def send(self, event: dict[str, Any]) -> None:
        """A client's ``task-sent``: it alone tells the queue, and when waiting began."""
        uuid, name = uuid_of(event), event.get("name")
        if uuid is None or not isinstance(name, str):
            return
        task = self._tasks.get(uuid) or self._admit(uuid, Task(name, None))
        task.queue = queue_of(event) or task.queue
        task.sent = number_of(event.get("timestamp"))
        task.due = unix_time(event.get("eta")) or task.due

    def apply(self, worker: WorkerTasks, kind: str, event: dict[str, Any], sole_queue: str | None, now: float) -> None:
        """One event of a task from a worker. ``sole_queue`` is the one that it consumes, if it is only one."""
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
        queue = task.queue or sole_queue or self._default_queue
        worker.counts.count(kind, task.name, queue, event)
        if kind == "task-started":
            self._tell_wait(worker, task, queue, event)
        if kind in ENDS and self._tasks.get(uuid) is task:
            rejecting = kind == "task-failed" and exception_class(event.get("exception"), event.get("traceback")) in REJECTING
            self._end(worker, kind, uuid, task, rejecting=rejecting)

    def forget(self, *workers: WorkerTasks) -> None:
        """The workers are gone, and what they had. Of all at once: it looks at all that is in flight."""
        gone = set(workers)
        for uuid in [uuid for uuid, task in self._tasks.items() if task.owner in gone]:
            del self._tasks[uuid]

    # --- parts ------------------------------------------------------------------------------------------------------

    def _admit(self, uuid: str, task: Task) -> Task:
        self._tasks[uuid] = task
        if len(self._tasks) > self._max_in_flight:
            oldest = next(iter(self._tasks))
            self._leave(oldest, self._tasks.pop(oldest))
            self.ignored["evicted"] += 1
        return task

    def _find(self, worker: WorkerTasks, kind: str, uuid: str, event: dict[str, Any], now: float) -> Task | None:
        task = self._tasks.get(uuid)
        if kind == "task-received":
            return self._receive(worker, uuid, task, event)
        if kind == "task-started":
            return self._start(worker, uuid, task, now)
        return self._late.get(uuid) if task is None and kind in MAY_FOLLOW else task

    def _receive(self, worker: WorkerTasks, uuid: str, task: Task | None, event: dict[str, Any]) -> Task | None:
        """Also of a task that is retried: its next run may be received before its last one has ended."""
        name = event.get("name")
        if task is None:
            if not isinstance(name, str):
                return None
            task = self._admit(uuid, Task(name, None))
        self._leave(uuid, task)
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

    @staticmethod
    def _tell_wait(worker: WorkerTasks, task: Task, queue: str, event: dict[str, Any]) -> None:
        began = number_of(event.get("timestamp"))
        if task.sent is None or began is None:
            return
        worker.counts.row(task.name, queue).queue_wait.observe(max(0.0, began - max(task.sent, task.due or 0.0)))
        # If it is retried, it waits anew.
        task.sent = task.due = None

    def _end(self, worker: WorkerTasks, kind: str, uuid: str, task: Task, *, rejecting: bool) -> None:
        worker.ended[task.name] += 1
        if task.owner not in (worker, None) or (kind == "task-retried" and not task.started):
            return  # its next run has been received
        self._leave(uuid, task)
        if kind == "task-retried":
            task.owner, task.started = None, False
            return
        del self._tasks[uuid]
        if rejecting or kind == "task-rejected" or (not task.started and kind in RAN):
            task.owner = None  # who may be gone, with its counters, long before this is forgotten
            self._late[uuid] = task
            if len(self._late) > MAX_LATE:
                del self._late[next(iter(self._late))]

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
    return queue if isinstance(queue, str) and queue else None


def number_of(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e12 else None


def unix_time(text: object) -> float | None:
    """Of an eta as Celery writes it (ISO 8601, without a zone in UTC)."""
    if not isinstance(text, str):
        return None
    try:
        # Python 3.10 reads no Z and only whole microseconds.
        moment = datetime.fromisoformat(LONG_FRACTION.sub(r"\1", text.replace("Z", "+00:00")))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None
