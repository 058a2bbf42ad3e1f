"""What becomes of task messages, counted by task type and queue as Celery's own task events tell
it.

The agent counts inside the worker, where each event would be sent if the worker had ``-E``; for
workers without an agent the exporter counts the events themselves. So both say the same. Standard
library only, because the agent loads it.

Names, buckets and meaning are danihodovic/celery-exporter's, so that its dashboards go on working.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from celery_memory_exporter.common.names import OTHER, short_name
from celery_memory_exporter.common.report import Histogram, Running, Traffic

#: prometheus_client's defaults, as danihodovic/celery-exporter has them.
RUNTIME_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
QUEUE_WAIT_SECONDS = RUNTIME_SECONDS
#: Fields of ``Traffic`` that count, by the event that raises them. Failures are counted by their
#: exception instead.
COUNTERS = {
    "task-received": "received",
    "task-started": "started",
    "task-succeeded": "succeeded",
    "task-retried": "retried",
    "task-rejected": "rejected",
    "task-revoked": "revoked",
}
UNKNOWN_EXCEPTION = "UnknownException"
#: How many task types are told to be running now, at most.
MAX_RUNNING = 50
#: How an exception shows itself: ``ValueError('x')`` or ``pkg.mod.Err('x')``, and ``<Err: 1>``.
CALLED = re.compile(r"([A-Za-z_][\w.]*)\(")
ANGLED = re.compile(r"<(?:class ')?([A-Za-z_][\w.]*)\b")
#: How Celery's own Reject shows itself: ``reject requeue=False: x``.
REJECT = "reject requeue="
#: Celery wraps an exception that does not come from a pool process. Its name is then in the last
#: line of the traceback: ``pkg.mod.Err: x``.
WRAPPER = "ExceptionWithTraceback("
RAISED = re.compile(r"([A-Za-z_][\w.]*)(?=:|\Z)")
#: Upper bounds of a histogram, at most.
MAX_BUCKETS = 50


def are_bounds(numbers: Sequence[float]) -> bool:
    """Whether a histogram of seconds may have these upper bounds: a few, above zero, ascending."""
    few = 1 <= len(numbers) <= MAX_BUCKETS
    return few and numbers[0] > 0 and all(low < high for low, high in pairwise(numbers))


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


class Totals:
    """What has been counted of one task type on one queue."""

    __slots__ = ("counters", "failed", "queue_wait", "runtime")

    def __init__(self, runtime: Sequence[float], queue_wait: Sequence[float]) -> None:
        #: A counter for each field of ``Traffic`` that counts, by the field's name.
        self.counters = dict.fromkeys(COUNTERS.values(), 0)
        self.failed: dict[str, int] = {}
        self.runtime = Distribution(runtime)
        self.queue_wait = Distribution(queue_wait)

    def fail(self, exception: str, max_exceptions: int) -> None:
        name = short_name(exception)
        if name not in self.failed and len(self.failed) >= max_exceptions:
            name = OTHER
        self.failed[name] = self.failed.get(name, 0) + 1

    def add(self, other: Totals) -> None:
        for own, more in ((self.counters, other.counters), (self.failed, other.failed)):
            for name, count in more.items():
                own[name] = own.get(name, 0) + count
        self.runtime.add(other.runtime)
        self.queue_wait.add(other.queue_wait)

    def restore(self, told: Mapping[str, Any]) -> None:
        """Adds what ``report`` told once, as plain values."""
        other = Totals(self.runtime.bounds, self.queue_wait.bounds)
        other.counters = {field: told[field] for field in COUNTERS.values()}
        other.failed = told["failed"]
        for name in ("runtime", "queue_wait"):
            distribution: Distribution = getattr(other, name)
            distribution.counts = told[name]["counts"]
            distribution.sum = told[name]["sum"]
        self.add(other)

    def report(self, name: str, queue: str) -> Traffic:
        return Traffic(
            name=name,
            queue=queue,
            failed=dict(self.failed),
            runtime=self.runtime.value(),
            queue_wait=self.queue_wait.value(),
            **self.counters,
        )


class Counts:
    """Totals by task name and queue; beyond ``max_tasks`` task types they are one. Not
    thread-safe."""

    def __init__(
        self,
        *,
        max_tasks: int,
        max_exceptions: int = 50,
        runtime: Sequence[float] = RUNTIME_SECONDS,
        queue_wait: Sequence[float] = QUEUE_WAIT_SECONDS,
    ) -> None:
        #: How often a task type or a queue was new when there was no room for one more.
        self.folded = 0
        #: Upper bounds of the buckets of run time and of queue wait.
        self.bounds = tuple(runtime), tuple(queue_wait)
        self._max_tasks = max_tasks
        self._max_exceptions = max_exceptions
        self._names: set[str] = set()
        self._totals: dict[tuple[str, str], Totals] = {}

    def totals(self, name: str, queue: str) -> Totals:
        """Made on first use, so that all counters are there from the first event on."""
        totals = self._totals.get((name, queue))
        return totals if totals is not None else self._new_totals(name, queue)

    def _new_totals(self, name: str, queue: str) -> Totals:
        name, queue = short_name(name), short_name(queue)
        known = name in self._names or len(self._names) < self._max_tasks
        # Names of queues may be made up as well (one for each client): as many as task types.
        if not known or len(self._totals) >= 2 * self._max_tasks:
            self.folded += 1
            name, queue = OTHER, ""
        self._names.add(name)
        totals = self._totals.get((name, queue))
        if totals is None:
            totals = self._totals[name, queue] = Totals(*self.bounds)
        return totals

    def count(self, event: str, name: str, queue: str, fields: Mapping[str, Any]) -> None:
        """Counts one event of a task; ``fields`` are the event's own (``runtime``, ``exception``).
        Of an event that has no counter nothing is counted."""
        if event == "task-failed":
            self.fail(
                name, queue, exception_class(fields.get("exception"), fields.get("traceback"))
            )
            return
        totals = self.totals(name, queue)
        counter = COUNTERS.get(event)
        if counter is not None:
            totals.counters[counter] += 1
            runtime = fields.get("runtime")
            if event == "task-succeeded" and isinstance(runtime, (int, float)) and runtime >= 0:
                totals.runtime.observe(runtime)

    def fail(self, name: str, queue: str, exception: str) -> None:
        """Counts one failure; ``exception`` is the name of its class."""
        self.totals(name, queue).fail(exception, self._max_exceptions)

    def move(self, queue: str, to: str) -> None:
        """What was counted for one queue was another's."""
        for name, each in list(self._totals):
            if each == queue:
                totals = self._totals.pop((name, queue))
                self.totals(name, to).add(totals)

    def clear(self) -> None:
        """Begins at zero; names that had room have it still."""
        self._totals.clear()

    def restore(self, told: Iterable[Mapping[str, Any]]) -> None:
        """Adds what ``reports`` told once, as plain values."""
        for row in told:
            self.totals(row["name"], row["queue"]).restore(row)

    def succeeded(self) -> dict[str, dict[str, int]]:
        """By task type and queue."""
        found: dict[str, dict[str, int]] = {}
        for (name, queue), totals in self._totals.items():
            found.setdefault(name, {})[queue] = totals.counters["succeeded"]
        return found

    def reports(self) -> list[Traffic]:
        """All totals as they are now, by name and queue."""
        return [
            totals.report(name, queue) for (name, queue), totals in sorted(self._totals.items())
        ]


def running_by_type(runs: Iterable[tuple[str, float]]) -> list[Running]:
    """How many runs of each type there are, out of each run's task name and its seconds so far. The
    types whose oldest run has run the longest come first."""
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
