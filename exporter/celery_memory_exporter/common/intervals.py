"""The whole life of a process or a worker in a bounded number of intervals, and each task type's
share of the growth in them, which ``least_squares`` finds.

As a life goes on, neighbours are merged, so that old and new evidence have the same resolution.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from celery_memory_exporter.common.evidence import Estimate
from celery_memory_exporter.common.least_squares import shares_of
from celery_memory_exporter.common.names import OTHER

#: Task types told apart in what is kept; beyond, a new one is ``other`` at once. An application
#: that makes names must not grow us.
MAX_NAMES = 256


@dataclass(slots=True)
class Interval:
    """Runs and growth between two readings. ``width`` counts the intervals merged into it."""

    runs: Counter[str]
    growth: float
    width: int = 1

    def absorb(self, other: Interval) -> None:
        self.runs.update(other.runs)
        self.growth += other.growth
        self.width += other.width


class Intervals:
    """The whole life in at most ``max_intervals`` intervals; at most ``max_columns`` task types,
    ``other`` included."""

    def __init__(self, max_intervals: int = 128, max_columns: int = 24) -> None:
        self._max_intervals = max(2, max_intervals)
        self._max_columns = max(1, max_columns)
        self._width = 1
        self._names: set[str] = set()
        #: Oldest first.
        self.kept: list[Interval] = []

    def add(self, runs: Mapping[str, int], growth: float) -> None:
        """One closed interval: runs finished in it per task type, and how much the quantity grew
        (negative: shrank)."""
        news = Interval(Counter(), growth)
        for name, count in runs.items():
            if count > 0:
                news.runs[self._admitted(name)] += count
        last = self.kept[-1] if self.kept else None
        if last is not None and (last.width < self._width or not (last.runs or news.runs)):
            last.absorb(news)
        else:
            self.kept.append(news)
        if len(self.kept) > self._max_intervals:
            self._halve()

    def _halve(self) -> None:
        # New intervals will be as wide as the old ones, so that evidence of every age has the same
        # resolution.
        self._width *= 2
        for early, late in zip(self.kept[::2], self.kept[1::2], strict=False):
            early.absorb(late)
        del self.kept[1::2]

    def _admitted(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= MAX_NAMES:
                return OTHER
            self._names.add(name)
        return name

    def estimates(self) -> dict[str, Estimate]:
        """Per task type that ran: its share of a run, in the unit of growth.

        Empty while there are fewer than two intervals more than columns. An error is a standard
        error, widened where intervals are few, so that three errors always bound 99.7 %; it is
        absent where the share cannot be told. The late share, of the later half of the intervals
        alone, is about zero for a cache that has filled.
        """
        columns = self._columns()
        if not columns or len(self.kept) < len(columns) + 2:
            return {}
        counts = [
            [sum(each.runs[name] for name in names) for names in columns.values()]
            for each in self.kept
        ]
        whole, late = shares_of(
            [
                [*map(float, runs), float(each.width), each.growth]
                for runs, each in zip(counts, self.kept, strict=True)
            ]
        )
        return {
            name: Estimate(
                per_run=whole.shares[at],
                error=finite(whole.errors[at]),
                late_per_run=late.shares[at],
                late_error=finite(late.errors[at]),
                runs=sum(runs),
                intervals=sum(1 for count in runs if count),
            )
            for at, (name, runs) in enumerate(zip(columns, zip(*counts, strict=True), strict=True))
        }

    def _columns(self) -> dict[str, list[str]]:
        """Which task types are told apart, the most frequent first, and which are ``other``."""
        total: Counter[str] = Counter()
        for interval in self.kept:
            total.update(interval.runs)
        names = [name for name, _ in total.most_common()]
        if len(names) <= self._max_columns:
            return {name: [name] for name in names}
        names.sort(key=lambda name: (name == OTHER, -total[name]))
        apart, folded = names[: self._max_columns - 1], names[self._max_columns - 1 :]
        return {**{name: [name] for name in apart}, OTHER: folded}


def finite(error: float) -> float | None:
    return error if math.isfinite(error) else None
