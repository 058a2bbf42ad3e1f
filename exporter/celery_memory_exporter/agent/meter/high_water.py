"""The process's high-water mark of resident memory, started anew for each run that has the process
to itself.

The pool recycles a child by the same mark (``worker_max_memory_per_child`` compares it after each
run). Once it is above that limit it is left alone, so that the pool sees it: the agent never
changes when a child is recycled.
"""

from __future__ import annotations

from celery_memory_exporter.agent.stats.readings import Readings


class HighWater:
    """Of one process. Bytes."""

    def __init__(self, readings: Readings, limit_bytes: int | None) -> None:
        #: The mark at the end of the last run that had the process to itself.
        self.last = 0
        self._last_rss: int | None = None
        self._readings = readings
        self._limit_bytes = limit_bytes

    def restart(self, rss: int) -> bool:
        """Starts a new mark, unless it is no higher than memory is now; whether the mark will tell
        of what comes. As long as memory is what it was at the end of the last run, the mark is as
        well, and the kernel need not be asked."""
        mark = self.last if rss == self._last_rss else self._readings.peak()
        if mark <= rss:
            return True
        if self._limit_bytes is not None and mark > self._limit_bytes:
            return False
        return self._readings.reset_peak()

    def read(self, rss: int | None) -> int:
        """The mark at the end of a run, when memory is ``rss``."""
        self.last, self._last_rss = self._readings.peak(), rss
        return self.last
