"""What all runs of the worker together leave behind, interval by interval, where no run can be
measured alone.

Live memory of a process whose runs overlap (threads, gevent, eventlet), and bytes in tmpfs, which
all children of the worker and other programs write to: by least squares. Intervals of live memory
end when no task runs, since then the least is in flight.

Live memory is blurred by what the worker itself does in such a process, but the sizes of containers
are not: where some runs are alone in it, what they add to the containers that grow is exact, and
tells who holds it as well.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterable

from celery_memory_exporter.agent.heap.containers import GrowingContainer, Probe
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.worker.ledger import ProcessTotals
from celery_memory_exporter.common.evidence import Estimate, Holder
from celery_memory_exporter.common.intervals import Intervals
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

#: An interval ends when no task runs, or after this: a busy pool may never rest.
LEAST_SECONDS, MOST_SECONDS = 0.4, 3.0
#: Of each of the worker's ticks, half a second apart, for the walk over the containers.
WALK_SECONDS = 0.003
#: Containers whose items are attributed, and the least share of a run that is told.
MAX_CONTAINERS = 8
#: Walks over the application's own modules, before all modules get their slow turn.
QUICK_WALKS = 30
LEAST_ITEMS, ERRORS = 0.02, 4.0
MAX_ADDED = 200


class Added:
    """Items that the runs of one type added to one container."""

    def __init__(self) -> None:
        self._runs, self._sum, self._squares = 0, 0.0, 0.0
        #: The sum as it was when the number of runs was a power of two, to tell the later half.
        self._marks: dict[int, float] = {0: 0.0}

    def add(self, items: float) -> None:
        self._runs += 1
        self._sum += items
        self._squares += items * items
        if self._runs & (self._runs - 1) == 0:
            self._marks[self._runs] = self._sum

    def estimate(self) -> Estimate:
        """The mean, and that of the later half or more."""
        mean = self._sum / self._runs
        error = math.sqrt(max(0.0, self._squares / self._runs - mean * mean) / self._runs)
        half = max(mark for mark in self._marks if mark <= self._runs / 2)
        late = (self._sum - self._marks[half]) / (self._runs - half)
        return Estimate(mean, error, late, error * math.sqrt(2), self._runs, self._runs)


class Shares:
    """``meter`` is of a process whose runs overlap; ``None`` where each has its process to
    itself."""

    def __init__(self, readings: Readings, meter: Meter | None) -> None:
        self._memory = Intervals()
        self._tmpfs = Intervals()
        self._probe = Probe(MAX_CONTAINERS, QUICK_WALKS)
        #: By container and task name: items that runs added which had the process to themselves.
        self._added: dict[tuple[str, str], Added] = {}
        self._readings = readings
        self._meter = meter
        self._collections = readings.full_collections()
        self._looking = threading.Lock()
        self._since = time.monotonic()
        self._runs: dict[str, int] = {}
        #: Task types past start-up when the last interval ended.
        self._started: set[str] = set()
        self._last = self._read()

    def look(self, processes: Iterable[ProcessTotals]) -> None:
        """Ends the interval if it is time to. Called on the worker's timer, and after runs, by
        whichever thread comes first."""
        seconds = time.monotonic() - self._since
        if seconds < LEAST_SECONDS or (
            self._meter is not None and not self._meter.occupancy.idle and seconds < MOST_SECONDS
        ):
            return
        if self._looking.acquire(blocking=False):
            try:
                self._end_interval(processes)
            finally:
                self._looking.release()

    def search(self) -> None:
        """On the worker's timer: goes on looking for containers that grow."""
        if self._meter is not None:
            self._probe.work(WALK_SECONDS)

    def containers(self) -> list[GrowingContainer]:
        return self._probe.containers()

    def sizes(self) -> dict[str, int]:
        """Items of the containers that grow, to be read at both ends of a run."""
        return self._probe.sizes()

    def add_items(self, name: str, before: dict[str, int]) -> None:
        """A run of this type is over during which no other one was active."""
        for path, items in self._probe.sizes().items():
            if path in before and ((path, name) in self._added or len(self._added) < MAX_ADDED):
                self._added.setdefault((path, name), Added()).add(items - before[path])

    def holders(self, name: str) -> list[Holder]:
        """Containers that grow with this task type's runs, the fastest first."""
        held = []
        for row in self._probe.containers():
            added = self._added.get((row.path, name))
            share = added.estimate() if added is not None else None
            if share is not None and share.per_run >= max(
                LEAST_ITEMS, ERRORS * (share.error or 0.0)
            ):
                held.append(
                    Holder(
                        row.path,
                        row.kind,
                        row.items,
                        share.per_run * share.runs,
                        row.capacity,
                        share,
                    )
                )
        return sorted(held, key=lambda holder: -holder.growth)

    def estimates(self) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
        """Bytes of live memory and in tmpfs that a run leaves behind, by task name."""
        return self._memory.estimates(), self._tmpfs.estimates()

    def collections(self) -> int:
        """Full collections since intervals are kept: what waits for one looks like growth of each
        task type until then."""
        return self._readings.full_collections() - self._collections

    def _end_interval(self, processes: Iterable[ProcessTotals]) -> None:
        runs: dict[str, int] = {}
        for process in processes:
            for (name, _), row in list(process.tasks.items()):
                runs[name] = runs.get(name, 0) + row.runs
        # A child that is gone took its runs along: what it ran last is not known to this interval.
        ran = {
            name: count - self._runs.get(name, 0)
            for name, count in runs.items()
            if count > self._runs.get(name, 0)
        }
        now = self._read()
        self._tmpfs.add(ran, now[1] - self._last[1])
        if self._meter is not None:
            # The first runs of a type leave behind what its later ones do not.
            if self._started.issuperset(ran):
                self._memory.add(ran, now[0] - self._last[0])
            self._started = {
                key[0]
                for key, grown in list(self._meter.measurements().growth.items())
                if not grown.starting
            }
        self._since, self._runs, self._last = time.monotonic(), runs, now

    def _read(self) -> tuple[float, float]:
        live = 0.0
        if self._meter is not None:
            live = sys.getallocatedblocks() * MEAN_BLOCK_BYTES + (self._readings.native_live() or 0)
        return live, self._readings.tmpfs()
