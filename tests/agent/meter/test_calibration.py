"""What a run of nothing reads as."""

from __future__ import annotations

import gc

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter.books import TRACEBACK_BLOCKS, Bias
from celery_memory_exporter.agent.meter.calibration import calibrated_meter, measure_biases
from celery_memory_exporter.agent.meter.conditions import Conditions
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.readings import Readings
from tests.agent.meter.runs import (
    retained,
    run,
)


def test_the_meter_that_is_calibrated_with_is_thrown_away() -> None:
    told: list[object] = []
    meter = calibrated_meter(
        Guard(),
        Readings(),
        Conditions(200),
        on_open=lambda *opened: told.append(opened),
        on_close=lambda *closed: told.append(closed),
    )
    measurements = meter.measurements()
    assert (measurements.totals, measurements.growth, measurements.dossiers) == ({}, {}, {})
    assert (meter.runs, meter.busy.seconds, measurements.costs.seconds) == (0, 0.0, 0.0)
    assert (meter.auditor.audits, meter.auditor.budget.spent) == (0, 0.0)
    assert meter.sampler.budget.spent == 0.0
    assert (meter.occupancy.idle, meter.guard.errors, told) == (True, 0, [])


def test_an_uncalibrated_meters_own_share_is_what_calibration_tells() -> None:
    """As long as nothing else in the process keeps or frees memory, which may happen once."""
    conditions = Conditions(200)

    def left_over() -> float:
        biases = measure_biases(Guard(), Readings(), conditions)
        meter = Meter(Guard(), Readings(), conditions)
        meter.auditor.budget = Budget(0.0, 1e9)
        run(meter, lambda: None, times=21)
        return retained(meter)[0] - biases.audit.blocks

    assert 0 in (left_over() for _ in range(3))


def test_without_audits_only_readings_are_calibrated() -> None:
    biases = measure_biases(Guard(), Readings(), Conditions(200, audits=False))
    assert biases.sample.blocks > 0, "what holds the opening readings"
    assert (biases.audit, biases.failed) == (Bias(), Bias())


def test_failed_runs_are_calibrated_where_the_pool_pickles_them() -> None:
    guard, readings = Guard(), Readings()
    plain = measure_biases(guard, readings, Conditions(200))
    pickling = measure_biases(guard, readings, Conditions(200, pickles_failures=True))
    assert plain.failed == Bias()
    assert pickling.failed != Bias()
    assert pickling.least_failed == TRACEBACK_BLOCKS
    assert guard.errors == 0


def test_where_nothing_can_be_audited_nothing_is_taken_off_audits() -> None:
    """As where the application debugs its collector."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        biases = measure_biases(Guard(), Readings(), Conditions(200, pickles_failures=True))
    finally:
        gc.set_debug(0)
    assert biases.audit == Bias()
    assert biases.failed == Bias()
