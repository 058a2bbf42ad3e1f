"""What becomes of task messages, counted by task type and queue as Celery's own task events tell
it.

The agent counts inside the worker, where each event would be sent if the worker had ``-E``; for
workers without an agent the exporter counts the events themselves. So both say the same. Standard
library only, because the agent loads it.

Names, buckets and meaning are the best-known exporter's, so that its dashboards go on working.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from celery_memory_exporter.common.names import OTHER, shown
from celery_memory_exporter.common.report import Histogram, Running, Traffic

#: prometheus_client's defaults, as the best-known exporter has them.
RUNTIME_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
QUEUE_WAIT_SECONDS = RUNTIME_SECONDS
#: Counters of a row, by the event that raises them.
COUNTERS = {
    "task-received": "received",
    "task-started": "started",
    "task-succeeded": "succeeded",
    "task-retried": "retried",
    "task-rejected": "rejected",
    "task-revoked": "revoked",
}
UNKNOWN_EXCEPTION = "UnknownException"
#: Task types that are shown to be running.
MAX_RUNNING = 50
#: Of an exception: ``ValueError('x')``, ``pkg.mod.Err('x')``, ``<Err: 1>``.
CALLED = re.compile(r"([A-Za-z_][\w.]*)\(")
ANGLED = re.compile(r"<(?:class ')?([A-Za-z_][\w.]*)\b")
#: Celery's own one that is written otherwise: ``reject requeue=False: x``.
REJECT = "reject requeue="
#: What an exception that does not come from a pool process is in. Its name then ends the traceback:
#: ``pkg.mod.Err: x``.
WRAPPER = "ExceptionWithTraceback("
RAISED = re.compile(r"([A-Za-z_][\w.]*)(?=:|\Z)")


class Distribution:
    """A histogram that grows."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add(self, other: Distribution) -> None:
        self.counts = [each + more for each, more in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum

    def value(self) -> Histogram:
        return Histogram(list(self.counts), self.sum)


class Row:
    """The counters of one task type on one queue."""

    __slots__ = (
        "failed",
        "queue_wait",
        "received",
        "rejected",
        "retried",
        "revoked",
        "runtime",
        "started",
        "succeeded",
    )

    def __init__(self, runtime: Sequence[float], queue_wait: Sequence[float]) -> None:
        self.received = self.started = self.succeeded = self.retried = self.rejected = (
            self.revoked
        ) = 0
        self.failed: dict[str, int] = {}
        self.runtime = Distribution(runtime)
        self.queue_wait = Distribution(queue_wait)

    def fail(self, exception: str, max_exceptions: int) -> None:
        name = shown(exception)
        if name not in self.failed and len(self.failed) >= max_exceptions:
            name = OTHER
        self.failed[name] = self.failed.get(name, 0) + 1

    def add(self, other: Row) -> None:
        for field in COUNTERS.values():
            setattr(self, field, getattr(self, field) + getattr(other, field))
        for name, count in other.failed.items():
            self.failed[name] = self.failed.get(name, 0) + count
        self.runtime.add(other.runtime)
        self.queue_wait.add(other.queue_wait)


class Counts:
    """Rows by task name and queue; beyond ``max_tasks`` task types they are one. Not
    thread-safe."""

    def __init__(
        self,
        *,
        max_tasks: int,
        max_exceptions: int = 50,
        runtime: Sequence[float] = RUNTIME_SECONDS,
        queue_wait: Sequence[float] = QUEUE_WAIT_SECONDS,
    ) -> None:
        self.folded = 0
        self.bounds = tuple(runtime), tuple(queue_wait)
        self._max_tasks = max_tasks
        self._max_exceptions = max_exceptions
        self._names: set[str] = set()
        self._rows: dict[tuple[str, str], Row] = {}

    def row(self, name: str, queue: str) -> Row:
        """Made on first use, so that all its counters are there from its first event on."""
        row = self._rows.get((name, queue))
        return row if row is not None else self._new_row(name, queue)

    def _new_row(self, name: str, queue: str) -> Row:
        name, queue = shown(name), shown(queue)
        known = name in self._names or len(self._names) < self._max_tasks
        # Names of queues may be made up as well (one for each client): as many as task types.
        if not known or len(self._rows) >= 2 * self._max_tasks:
            self.folded += 1
            name, queue = OTHER, ""
        self._names.add(name)
        row = self._rows.get((name, queue))
        if row is None:
            row = self._rows[name, queue] = Row(*self.bounds)
        return row

    def count(self, event: str, name: str, queue: str, fields: Mapping[str, Any]) -> None:
        """One event of a task: ``fields`` are the event's own (``runtime``, ``exception``). Others
        than a task's are left out."""
        if event == "task-failed":
            self.fail(
                name, queue, exception_class(fields.get("exception"), fields.get("traceback"))
            )
            return
        row = self.row(name, queue)
        counter = COUNTERS.get(event)
        if counter is not None:
            setattr(row, counter, getattr(row, counter) + 1)
            runtime = fields.get("runtime")
            if event == "task-succeeded" and isinstance(runtime, (int, float)) and runtime >= 0:
                row.runtime.observe(runtime)

    def fail(self, name: str, queue: str, exception: str) -> None:
        """One failure; ``exception`` is the name of its class."""
        self.row(name, queue).fail(exception, self._max_exceptions)

    def move(self, queue: str, to: str) -> None:
        """What was counted for one queue was another's."""
        for name, each in list(self._rows):
            if each == queue:
                row = self._rows.pop((name, queue))
                self.row(name, to).add(row)

    def reports(self) -> list[Traffic]:
        """All rows as they are now, by name and queue."""
        return [
            Traffic(
                name=name,
                queue=queue,
                received=row.received,
                started=row.started,
                succeeded=row.succeeded,
                failed=dict(row.failed),
                retried=row.retried,
                rejected=row.rejected,
                revoked=row.revoked,
                runtime=row.runtime.value(),
                queue_wait=row.queue_wait.value(),
            )
            for (name, queue), row in sorted(self._rows.items())
        ]


def running_by_type(runs: Iterable[tuple[str, float]]) -> list[Running]:
    """Out of each run's task name and seconds so far; the types whose oldest runs the longest come
    first."""
    counts: Counter[str] = Counter()
    oldest: dict[str, float] = {}
    for name, seconds in runs:
        counts[name] += 1
        oldest[name] = max(oldest.get(name, 0.0), seconds)
    ranked = sorted(counts, key=lambda name: -oldest[name])[:MAX_RUNNING]
    return [Running(name, counts[name], oldest[name]) for name in ranked]


def exception_class(text: object, traceback: object = None) -> str:
    """The class's name out of an exception's ``repr``, without its module: all that an event tells
    of it."""
    if not isinstance(text, str):
        return UNKNOWN_EXCEPTION
    if text.startswith(REJECT):
        return "Reject"
    if text.startswith(WRAPPER) and isinstance(traceback, str):
        match = RAISED.match(traceback.rstrip().rpartition("\n")[2])
    else:
        match = CALLED.match(text) or ANGLED.match(text)
    return match[1].rpartition(".")[2] or UNKNOWN_EXCEPTION if match else UNKNOWN_EXCEPTION
