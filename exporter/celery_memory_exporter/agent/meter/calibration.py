"""What a run of nothing reads as: the meter's own share in each run, measured by the very code that
measures real runs, on a meter that is thrown away afterwards."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter import answers
from celery_memory_exporter.agent.meter.books import TRACEBACK_BLOCKS, Bias, Biases
from celery_memory_exporter.agent.meter.conditions import Conditions, OnClose, OnOpen
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.profile import Column
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

#: Of each way to measure. Their median counts, so that what another thread does in some of them
#: does not.
RUNS = 15


def calibrated_meter(
    guard: Guard,
    readings: Readings,
    conditions: Conditions,
    *,
    on_open: OnOpen | None = None,
    on_close: OnClose | None = None,
) -> Meter:
    """A meter that knows its own share; its owner hears nothing of the runs that tell it."""
    biases = measure_biases(guard, readings, conditions)
    return Meter(guard, readings, conditions, biases=biases, on_open=on_open, on_close=on_close)


def measure_biases(guard: Guard, readings: Readings, conditions: Conditions) -> Biases:
    """Of runs that are read without an audit, of audited ones, and of audited ones that failed."""
    unaudited = Meter(guard, readings, dataclasses.replace(conditions, audits=False))
    sample = _bias(unaudited, "succeeds", answers.succeeded_answer)
    if not conditions.audits:
        return Biases(sample)
    audited = Meter(guard, readings, conditions, biases=Biases(sample))
    audit = _bias(audited, "succeeds", answers.succeeded_answer)
    failed = Bias()
    if conditions.pickles_failures:
        failed = _bias(audited, "fails", answers.failed_answer)
    return Biases(sample, audit, failed, least_failed=TRACEBACK_BLOCKS)


def _bias(meter: Meter, name: str, answer: Callable[[], Any]) -> Bias:
    trace = measured(meter, name, lambda *_: answer())
    found = []
    for _ in range(RUNS):
        trace("", (), {}, None)
        grown = meter.totals.growth[name, ""]
        bias = _read(grown)
        if bias is not None:
            found.append(bias)
        # As if it were the type's first run each time: so each is audited, if any is.
        grown.forget_runs()
    return Bias(*map(statistics.median, zip(*found, strict=True))) if found else Bias()


def _read(grown: TaskProfile) -> Bias | None:
    """What the one run that is in there left behind; ``None`` when it was not measured."""
    row = grown.row
    if row[0, Column.AUDITED]:
        return Bias(row[0, Column.BLOCKS], row[0, Column.NATIVE])
    if row[0, Column.SAMPLED]:
        return Bias(row[0, Column.SAMPLED_BYTES] / MEAN_BLOCK_BYTES, 0.0)
    return None
