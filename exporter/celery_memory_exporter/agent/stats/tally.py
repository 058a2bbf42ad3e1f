"""Totals of one task type on one queue: what its runs came to, cumulative, cheap to add to and to
send.

Adding finds its column by a number of this module, bound once (see ``row``).
"""

from __future__ import annotations

from bisect import bisect_left
from enum import IntEnum
from typing import TypeAlias

from celery_memory_exporter.agent.stats.profile import Retained
from celery_memory_exporter.agent.stats.row import Row
from celery_memory_exporter.common import names
from celery_memory_exporter.common.evidence import Evidence
from celery_memory_exporter.common.report import OUTCOMES, Histogram, TaskReport

#: Task name and queue.
TaskKey: TypeAlias = "tuple[str, str]"

#: Where runs of task types beyond the cap are summed.
OTHER: TaskKey = (names.OTHER, "")

MIB = 1024.0 * 1024.0

#: Powers of four around zero: a page more or less is noise, 256 MiB in one run is an event.
DELTA_BYTES = [-256 * MIB, -64 * MIB, -16 * MIB, -4 * MIB, -MIB, -MIB / 4, -MIB / 16, 0.0]
DELTA_BYTES += [MIB / 16, MIB / 4, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB]
PEAK_BYTES = [0.0, MIB / 16, MIB / 4, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB]
PEAK_BYTES += [1024 * MIB, 4096 * MIB]


class Column(IntEnum):
    """Where a figure stands in the row, or the first of several: one for each outcome, in the order
    of ``OUTCOMES``, or one for each bucket and one above."""

    RUNS = 0
    SECONDS = RUNS + len(OUTCOMES)
    #: Resident memory: what the runs that grew added in sum, and what the others gave back.
    GROWN = SECONDS + len(OUTCOMES)
    RELEASED = GROWN + 1
    #: Runs that were audited, to count; what they left behind is in the type's profile.
    AUDITED = RELEASED + 1
    DELTA_SUM = AUDITED + 1
    DELTA = DELTA_SUM + 1
    PEAK_SUM = DELTA + len(DELTA_BYTES) + 1
    PEAK = PEAK_SUM + 1
    END = PEAK + len(PEAK_BYTES) + 1


_RUNS, _SECONDS = int(Column.RUNS), int(Column.SECONDS)
_GROWN, _RELEASED, _AUDITED = int(Column.GROWN), int(Column.RELEASED), int(Column.AUDITED)
_DELTA_SUM, _DELTA = int(Column.DELTA_SUM), int(Column.DELTA)
_PEAK_SUM, _PEAK = int(Column.PEAK_SUM), int(Column.PEAK)
#: The buckets of nothing.
_DELTA_NONE, _PEAK_NONE = _DELTA + bisect_left(DELTA_BYTES, 0), _PEAK + bisect_left(PEAK_BYTES, 0)


class TaskTotals(Row):
    """What the runs of one task type on one queue came to, in one process or in several."""

    __slots__ = ()
    SIZE = Column.END

    def add_run(self, outcome: int, seconds: float) -> None:
        """``outcome`` is an index into ``OUTCOMES``."""
        figures = self.figures
        figures[_RUNS + outcome] += 1
        figures[_SECONDS + outcome] += seconds

    def add_audit(self) -> None:
        self.figures[_AUDITED] += 1

    def add_memory(self, before: int, after: int, peak: int | None) -> None:
        """Bytes of resident memory before and after a run, and the most that there were meanwhile
        (``None``: not known). In most runs, nothing changes."""
        figures = self.figures
        if after == before:
            figures[_DELTA_NONE] += 1
        else:
            self.add_delta(after - before)
        if peak is None:
            return
        if peak <= before:
            figures[_PEAK_NONE] += 1
        else:
            self.add_peak(peak - before)

    def add_delta(self, size: float) -> None:
        """Bytes of resident memory after a run, minus those before it."""
        figures = self.figures
        figures[_GROWN if size > 0 else _RELEASED] += abs(size)
        figures[_DELTA_SUM] += size
        figures[_DELTA + bisect_left(DELTA_BYTES, size)] += 1

    def add_peak(self, size: float) -> None:
        """Bytes by which resident memory rose at most while a run went on."""
        figures = self.figures
        figures[_PEAK_SUM] += size
        figures[_PEAK + bisect_left(PEAK_BYTES, size)] += 1

    @property
    def runs(self) -> int:
        """Runs of any outcome."""
        return int(sum(self.figures[_RUNS : _RUNS + len(OUTCOMES)]))

    @property
    def runs_by_outcome(self) -> dict[str, int]:
        """Without the outcomes that no run had."""
        figures = self.figures
        return {
            name: int(figures[_RUNS + at])
            for at, name in enumerate(OUTCOMES)
            if figures[_RUNS + at]
        }

    @property
    def seconds_by_outcome(self) -> dict[str, float]:
        """The time that runs took, for each outcome that one had."""
        figures = self.figures
        return {
            name: figures[_SECONDS + at] for at, name in enumerate(OUTCOMES) if figures[_RUNS + at]
        }

    @property
    def audits(self) -> int:
        return int(self.figures[_AUDITED])

    @property
    def grown_bytes(self) -> float:
        """Bytes of resident memory that runs added, in sum."""
        return self.figures[_GROWN]

    @property
    def released_bytes(self) -> float:
        """Bytes of resident memory that runs gave back, in sum."""
        return self.figures[_RELEASED]

    @property
    def delta(self) -> Histogram:
        return self._histogram(_DELTA, DELTA_BYTES, _DELTA_SUM)

    @property
    def peak(self) -> Histogram:
        return self._histogram(_PEAK, PEAK_BYTES, _PEAK_SUM)

    def _histogram(self, first: int, bounds: list[float], sum_column: int) -> Histogram:
        counts = self.figures[first : first + len(bounds) + 1]
        return Histogram(list(map(int, counts)), self.figures[sum_column])


def to_report(
    key: TaskKey,
    totals: TaskTotals,
    *,
    retained: Retained,
    evidence: Evidence | None,
    native: bool,
    peak: bool,
) -> TaskReport:
    """``native`` and ``peak`` tell whether this system can measure those at all."""
    return TaskReport(
        name=key[0],
        queue=key[1],
        runs=totals.runs_by_outcome,
        seconds=totals.seconds_by_outcome,
        delta=totals.delta,
        growth_bytes=totals.grown_bytes,
        release_bytes=totals.released_bytes,
        peak=totals.peak if peak else None,
        retained_blocks=retained.blocks,
        retained_native_bytes=retained.native_bytes if native else None,
        retained_runs=int(retained.runs),
        audited_runs=totals.audits,
        evidence=evidence,
    )
