"""What the agent adds up per task type: one fixed row of numbers, cumulative, cheap to update and
to send.

A row is an ``array`` of doubles: adding to it makes no object that stays, so the agent's own
book-keeping does not show in the live blocks that it measures; a whole row goes through the pipe as
bytes; rows of several processes add up column by column.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from operator import add
from typing import TypeAlias

from celery_memory_exporter.common import names
from celery_memory_exporter.common.evidence import Evidence
from celery_memory_exporter.common.report import OUTCOMES, Histogram, TaskReport

#: Task name and queue.
TaskKey: TypeAlias = "tuple[str, str]"
Row: TypeAlias = "array[float]"

#: Where runs of task types beyond the cap are summed.
OTHER: TaskKey = (names.OTHER, "")

MIB = 1024.0 * 1024.0

#: Powers of four around zero: a page more or less is noise, 256 MiB in one run is an event.
DELTA_BYTES = [-256 * MIB, -64 * MIB, -16 * MIB, -4 * MIB, -MIB, -MIB / 4, -MIB / 16, 0.0]
DELTA_BYTES += [MIB / 16, MIB / 4, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB]
PEAK_BYTES = [
    0.0,
    MIB / 16,
    MIB / 4,
    MIB,
    4 * MIB,
    16 * MIB,
    64 * MIB,
    256 * MIB,
    1024 * MIB,
    4096 * MIB,
]

#: Columns. The first ones are the runs by outcome, in the order of ``OUTCOMES``, then the seconds
#: that they took.
SECONDS = len(OUTCOMES)
GROWTH = 2 * len(OUTCOMES)
RELEASE = GROWTH + 1
DELTA_SUM = GROWTH + 2
PEAK_SUM = GROWTH + 3
#: Runs that were audited, to count; what they left behind is in ``growth``.
AUDITED = GROWTH + 4
DELTA = GROWTH + 5
PEAK = DELTA + len(DELTA_BYTES) + 1
WIDTH = PEAK + len(PEAK_BYTES) + 1


def new_row() -> Row:
    return array("d", bytes(8 * WIDTH))


def observe_delta(row: Row, size: float) -> None:
    row[GROWTH if size > 0 else RELEASE] += abs(size)
    row[DELTA_SUM] += size
    row[DELTA + bisect_left(DELTA_BYTES, size)] += 1


def observe_peak(row: Row, size: float) -> None:
    row[PEAK_SUM] += size
    row[PEAK + bisect_left(PEAK_BYTES, size)] += 1


def total(rows: Iterable[Row]) -> Row:
    """The column-wise sum of one row or more."""
    first, *rest = rows
    result = first[:]
    for row in rest:
        result = array("d", map(add, result, row))
    return result


def runs_of(row: Row) -> int:
    """Runs of any outcome."""
    return int(sum(row[: len(OUTCOMES)]))


def to_report(
    key: TaskKey,
    row: Row,
    *,
    retained: tuple[float, float, float],
    evidence: Evidence | None,
    native: bool,
    peak: bool,
) -> TaskReport:
    """``retained``: blocks, native bytes and runs; ``native`` and ``peak`` tell whether this system
    can measure those at all."""

    def histogram(start: int, bounds: list[float], sum_column: int) -> Histogram:
        return Histogram(
            [int(value) for value in row[start : start + len(bounds) + 1]], row[sum_column]
        )

    return TaskReport(
        name=key[0],
        queue=key[1],
        runs={outcome: int(row[column]) for column, outcome in enumerate(OUTCOMES) if row[column]},
        seconds={
            outcome: row[SECONDS + column] for column, outcome in enumerate(OUTCOMES) if row[column]
        },
        delta=histogram(DELTA, DELTA_BYTES, DELTA_SUM),
        growth_bytes=row[GROWTH],
        release_bytes=row[RELEASE],
        peak=histogram(PEAK, PEAK_BYTES, PEAK_SUM) if peak else None,
        retained_blocks=retained[0],
        retained_native_bytes=retained[1] if native else None,
        retained_runs=int(retained[2]),
        audited_runs=int(row[AUDITED]),
        evidence=evidence,
    )
