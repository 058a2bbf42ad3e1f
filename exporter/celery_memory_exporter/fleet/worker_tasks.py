"""What one worker's task events add up to, and how many of them did not get here.

The worker itself tells the latter: its heartbeats count the tasks that it started. Types of tasks
with ``send_events=False`` are in that count, and cannot be told from loss.
"""

from __future__ import annotations

from collections import Counter, deque

from celery_memory_exporter.common.names import OTHER, shown
from celery_memory_exporter.common.report import Running
from celery_memory_exporter.common.traffic import Counts, running_by_type

#: A heartbeat tells of runs that began so long before, whatever is still on its way.
SETTLED_SECONDS = 5.0
#: A worker that starts tasks over so many heartbeats without an event sends none.
QUIET_BEATS = 3
#: What is missing at so many heartbeats in a row is lost.
MISSING_BEATS = 4
#: Task types whose ended runs are told apart.
MAX_NAMES = 256


class Task:
    """One task that is not done."""

    __slots__ = ("due", "failed", "name", "owner", "queue", "sent", "started")

    def __init__(self, name: str, queue: str | None) -> None:
        self.name = shown(name)
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
        #: Whether it ever sent task events, and whether it does now.
        self.known = self.talks = False
        self._heard = False
        self._quiet_beats = 0
        #: ``task-started`` that came since the worker's own count of started tasks was ``_from``;
        #: what its last heartbeat said; and how many were missing at the latest heartbeats.
        self._came = 0
        self._missing: deque[int] = deque(maxlen=MISSING_BEATS)
        self._from: int | None = None
        self._last: int | None = None
        self._lost = self._lost_before = 0
        self._measured = False

    @property
    def lost(self) -> int | None:
        """Started tasks whose events did not get here, at least; ``None`` where nothing tells."""
        return self._lost_before + self._lost if self._measured else None

    @property
    def in_flight(self) -> int:
        """Tasks that it has received and not finished."""
        return self.prefetched + len(self.running)

    def hear(self, kind: str) -> None:
        """An event came, whatever it is worth."""
        if not self.talks:
            # It may have started any number of tasks before its first event: the next heartbeat is
            # where counting begins.
            self.known = self.talks = True
            self._settle()
        self._heard = True
        if kind == "task-started":
            self._came += 1

    def beat(self, processed: int) -> bool:
        """A heartbeat with the worker's own count of tasks that it started; whether the worker has
        restarted since the last one.

        Workers send events in batches, so some are always on their way: lost is what is missing at
        several heartbeats. A worker that starts tasks while no event comes at all sends none (any
        more), since heartbeats come the same way.
        """
        restarted = self._last is not None and processed < self._last
        quiet = not self._heard and processed != self._last
        self._quiet_beats = self._quiet_beats + 1 if quiet else 0
        if restarted or self._quiet_beats >= QUIET_BEATS:
            self.mute()
        elif self.talks and self._from is None:
            self._from, self._came, self._measured = processed, 0, True
        elif self._from is not None and not quiet:
            self._missing.append(processed - self._from - self._came)
            if len(self._missing) == MISSING_BEATS:
                self._lost = max(self._lost, min(self._missing))
        self._last, self._heard = processed, False
        return restarted

    def mute(self) -> None:
        """It sends no events now, or they are not looked at."""
        self.talks = False
        self._settle()

    def _settle(self) -> None:
        self._lost_before += self._lost
        self._lost, self._from, self._came = 0, None, 0
        self._missing.clear()

    def end(self, name: str) -> None:
        self.ended[name if name in self.ended or len(self.ended) < MAX_NAMES else OTHER] += 1

    def surplus(self, active: int, now: float) -> list[str]:
        """Runs beyond those that the worker says are active, whose end nobody told (nobody does of
        an ignored task): the oldest."""
        settled = [
            uuid for uuid, (_, started) in self.running.items() if now - started > SETTLED_SECONDS
        ]
        return settled[: max(0, len(self.running) - active)]

    def tell_running(self, now: float) -> list[Running]:
        return running_by_type((name, now - started) for name, started in self.running.values())
