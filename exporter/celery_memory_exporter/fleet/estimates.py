"""Resident memory by task type where no agent measures it: the growth of a worker's processes,
shared out among what ran meanwhile.

An estimate, and named so. Least squares (``common.least_squares``) over the readings of the process
table: growth of all processes between two readings = sum over task types of runs x share + a
background + noise. What it cannot tell has no error and is not shown: task types that always run
together, or as often in each interval. Resident memory is what the system sees, so a leak that
fills pages which other tasks have freed shows nowhere, or with them.
"""

from __future__ import annotations

from collections.abc import Mapping

from celery_memory_exporter.common.evidence import Estimate
from celery_memory_exporter.common.intervals import Intervals
from celery_memory_exporter.fleet.facts import Identity, WorkerProcesses

#: Solving takes some 10 ms where task types are many: anew after so many more intervals, or this
#: share more.
LEAST_NEWS, NEWS_SHARE = 6, 0.1
#: Fewer intervals tell nothing, whatever their errors say.
LEAST_INTERVALS = 12


class ResidentShares:
    """Estimates the resident memory that a run of each task type adds, for one worker."""

    def __init__(self) -> None:
        self.estimates: dict[str, Estimate] = {}
        self._intervals = Intervals()
        self._taken = 0
        self._solved = 0
        self._before: dict[Identity, int] = {}

    def read(self, table: WorkerProcesses, runs: Mapping[str, int]) -> None:
        """A reading of its processes, and the runs that ended since the one before. What came or
        went meanwhile is left out."""
        now = {
            each.identity: each.status.rss_bytes
            for each in (table.main, *table.children)
            if each.status.rss_bytes is not None
        }
        growth = sum(
            size - self._before[identity]
            for identity, size in now.items()
            if identity in self._before
        )
        both = now.keys() & self._before.keys()
        self._before = now
        if not both:
            return
        self._intervals.add(runs, growth)
        self._taken += 1
        if self._taken - self._solved >= max(LEAST_NEWS, NEWS_SHARE * self._taken):
            self._solved = self._taken
            self.estimates = self._solve()

    def _solve(self) -> dict[str, Estimate]:
        return {
            name: each
            for name, each in self._intervals.estimates().items()
            if each.error is not None and self._taken >= LEAST_INTERVALS
        }
