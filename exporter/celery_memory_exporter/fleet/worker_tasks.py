"""What one worker's task events add up to, and how many of them did not get here.

The worker itself tells the latter: its heartbeats count the tasks that it started. Types of tasks
with ``send_events=False`` are in that count, and cannot be told from loss.
"""

from __future__ import annotations

from collections import Counter, deque

from celery_memory_exporter.common.names import OTHER, short_name
from celery_memory_exporter.common.report import Running
from celery_memory_exporter.common.traffic import Counts, running_by_type

#: After this many seconds a heartbeat's ``active`` certainly includes a run, even if its events are
#: still in transit.
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
        self.name = short_name(name)
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
        # Events are lost when the worker's own count (``processed``) runs ahead of ours for
        # MISSING_BEATS heartbeats in a row.
        #: The worker's count at the heartbeat where ours began; ``None`` until then.
        self._baseline: int | None = None
        #: Our count since then: ``task-started`` events.
        self._started_events = 0
        #: How far ours was behind at the latest heartbeats.
        self._gaps: deque[int] = deque(maxlen=MISSING_BEATS)
        #: The worker's count at its last heartbeat.
        self._last_processed: int | None = None
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
            self._started_events += 1

    def beat(self, processed: int) -> bool:
        """A heartbeat with the worker's own count of tasks that it started; whether the worker has
        restarted since the last one.

        Workers send events in batches, so some are always on their way: lost is what is missing at
        several heartbeats. A worker that starts tasks while no event comes at all sends none (any
        more), since heartbeats come the same way.
        """
        restarted = self._last_processed is not None and processed < self._last_processed
        quiet = not self._heard and processed != self._last_processed
        self._quiet_beats = self._quiet_beats + 1 if quiet else 0
        if restarted or self._quiet_beats >= QUIET_BEATS:
            self.mute()
        elif self.talks and self._baseline is None:
            self._baseline, self._started_events, self._measured = processed, 0, True
        elif self._baseline is not None and not quiet:
            self._gaps.append(processed - self._baseline - self._started_events)
            if len(self._gaps) == MISSING_BEATS:
                self._lost = max(self._lost, min(self._gaps))
        self._last_processed, self._heard = processed, False
        return restarted

    def mute(self) -> None:
        """It sends no events now, or they are not looked at."""
        self.talks = False
        self._settle()

    def _settle(self) -> None:
        self._lost_before += self._lost
        self._lost, self._baseline, self._started_events = 0, None, 0
        self._gaps.clear()

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
