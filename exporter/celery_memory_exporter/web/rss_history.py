"""Resident memory of each worker over the last hour, for the page: kept here, because a page that
was just opened has no past.

Fed by a timer of its own, never by a request. Bounded: ``POINTS`` numbers a worker, forgotten with
the worker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from celery_memory_exporter.fleet.snapshot import GroupView, Snapshot
from celery_memory_exporter.sources.poller import Attempt, Poller

logger = logging.getLogger(__name__)

#: Broker and nodename that a worker or a group is shown by.
Key = tuple[str, str]

#: A series begins with a point per agents' default interval, so that there is soon something to
#: see; each time that it is full, every other point goes. At the last step it spans an hour and
#: forgets its oldest point.
POINTS = 60
FIRST_STEP_SECONDS, LAST_STEP_SECONDS = 15.0, 60.0


@dataclass(slots=True)
class Series:
    """Bytes, oldest first, ``step_seconds`` apart; ``None`` where the worker's memory was
    unknown."""

    due: float
    step_seconds: float = FIRST_STEP_SECONDS
    points: list[int | None] = field(default_factory=list)

    def add(self, value: int | None, now: float) -> None:
        """Takes the value if it is time for one, half a tick early at most: a timer's ticks are not
        even."""
        if now < self.due - FIRST_STEP_SECONDS / 2:
            return
        self.points.append(value)
        if len(self.points) > POINTS:
            if self.step_seconds < LAST_STEP_SECONDS:
                del self.points[1::2]
                self.step_seconds *= 2
            else:
                del self.points[0]
        self.due = now + self.step_seconds


class RssHistory:
    """Thread-safe. ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._series: dict[Key, Series] = {}

    def add(self, snapshot: Snapshot, now: float) -> None:
        """Takes a point of each worker, and forgets those that are not there any more."""
        resident = {
            (group.broker, group.nodename): resident_bytes(group) for group in snapshot.groups
        }
        with self._lock:
            self._series = {key: self._series.get(key) or Series(due=now) for key in resident}
            for key, value in resident.items():
                self._series[key].add(value, now)

    def of(self, key: Key) -> tuple[float, list[int | None]]:
        """Seconds between two points, and the points."""
        with self._lock:
            series = self._series.get(key)
            return (
                (series.step_seconds, list(series.points))
                if series is not None
                else (FIRST_STEP_SECONDS, [])
            )


def resident_bytes(group: GroupView) -> int | None:
    """The sum over all processes; ``None`` when none is known."""
    processes = (view for worker in group.members for view in worker.processes)
    return sum(view.figures.rss_bytes or 0 for view in processes) or None


class HistoryKeeper:
    """Adds to ``history`` what ``snapshot`` answers, in a thread of its own."""

    def __init__(
        self,
        history: RssHistory,
        snapshot: Callable[[], Snapshot],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._history = history
        self._snapshot = snapshot
        self._monotonic = monotonic
        self._poller = Poller("rss-history", self._step, self._tell, interval=FIRST_STEP_SECONDS)

    def start(self) -> None:
        """The first point is there when this returns."""
        self.tick()
        self._poller.start(after=FIRST_STEP_SECONDS)

    def stop(self) -> None:
        self._poller.stop()

    def tick(self) -> None:
        """One point of each worker, if it is time for one."""
        self._poller.poll()

    def _step(self) -> None:
        self._history.add(self._snapshot(), self._monotonic())

    def _tell(self, attempt: Attempt) -> None:
        if attempt.error is not None:  # a point that is missing is a gap in a line
            logger.error("the history of RSS has a gap", exc_info=attempt.error)
