"""Audited runs as a worker's tracer has them, and what each of them was told to leave behind."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery.app.trace import TraceInfo, trace_ok_t

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter.calibration import calibrated_meter
from celery_memory_exporter.agent.meter.conditions import Conditions
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.profile import Column, Failed, ProfileRow
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.stats.tally import TaskTotals

#: Past what the first runs of a process set up (line caches, the C heap's own).
WARM = 12
#: Room for what runs keep, so that no list grows by it.
ROOM: list[Any] = []

Trace = Callable[..., Any]


class Thing:
    """Something to keep."""


@pytest.fixture
def heap_as_it_was() -> Iterator[None]:
    """Gives the test its room, and looks that it left the collector as it was."""
    ROOM.extend([None] * 10_000)
    before = collector_state()
    yield
    ROOM.clear()
    assert collector_state() == before


def collector_state() -> tuple[object, ...]:
    # Python 3.12 freezes immortal objects by itself.
    frozen = gc.get_freeze_count() if sys.version_info < (3, 12) else 0
    return gc.isenabled(), gc.get_threshold(), gc.get_debug(), frozen


def keep(count: int, kind: Callable[[], object] = object) -> None:
    """Into room that is there already."""
    first = ROOM.index(None)
    for place in range(count):
        ROOM[first + place] = kind()


def make_meter(readings: Readings | None = None, **options: Any) -> Meter:
    """One with time for each audit, and none for deep and confirming ones."""
    options = {"max_tasks": 200, "pickles_failures": True, **options}
    conditions = Conditions(**options)
    meter = calibrated_meter(Guard(), readings or Readings(), conditions)
    meter.auditor.budget = Budget(0.0, 1e9)
    meter.auditor.confirming = meter.deep.budget = Budget(0.0, -10.0)
    return meter


def run(meter: Meter, trace: Trace, times: int = 1) -> Any:
    """The last answer of the measured task, after so many runs."""
    wrapped = measured(meter, "t", trace)
    for _ in range(times):
        answered = wrapped("uuid", (), {}, {})
    return answered


def profile_of(meter: Meter) -> TaskProfile:
    return meter.totals.growth["t", ""]


def survivors_of(meter: Meter) -> dict[str, int]:
    """But for the queue that the test runner's own thread makes when it hands tests on."""
    survivors = dict(profile_of(meter).survivors)
    survivors.pop("collections.deque", None)
    return survivors


def totals_of(meter: Meter) -> TaskTotals:
    return meter.totals.rows["t", ""]


def answer(value: Any = None) -> trace_ok_t:
    """As Celery makes it: runtime and text are new objects."""
    return trace_ok_t(value, None, float("0.25"), "".join(list(repr(value)[:1024])))


def failed(error: Exception) -> trace_ok_t:
    return trace_ok_t(ExceptionInfo(), TraceInfo("FAILURE", error), None, None)


def returning(body: Callable[[], Any]) -> Trace:
    return lambda *_: answer(body())


def failing(body: Callable[[], object]) -> Trace:
    def trace(*_: Any) -> trace_ok_t:
        try:
            body()
            raise ValueError("no way")  # the traceback, and so this frame, is part of the answer
        except ValueError as error:
            return failed(error)

    return trace


def audits(
    trace: Trace, runs: int = 10, args: Callable[[], tuple[Any, ...]] = tuple
) -> list[dict[str, float]]:
    """Figures of each of so many runs that are past start-up, by the names of ``Profile``."""
    meter = make_meter()
    wrapped = measured(meter, "t", trace)
    found = []
    for number in range(WARM + runs):
        wrapped("uuid", args(), {}, {})
        profile = profile_of(meter)
        figures = figures_of(profile.row)
        assert figures["audited"] == 1
        if number >= WARM:
            found.append(figures)
        profile.row = ProfileRow()
        profile.audits = 0  # else they get rarer
    assert meter.guard.errors == 0
    return found


def figures_of(row: ProfileRow) -> dict[str, float]:
    sums = row.sums(0)
    figures = {column.name.lower(): sums[column] for column in Column}
    return figures | {"failed": row.failed_audits, "failed_blocks": row.figures[Failed.BLOCKS]}


def mostly(figures: list[Any], expected: Any) -> bool:
    """Each run's. In Python 3.10 a function gets its cache of opcodes in its 1,024th call: some
    blocks, in a run or two."""
    return sum(each != expected for each in figures) <= (2 if sys.version_info < (3, 11) else 0)
