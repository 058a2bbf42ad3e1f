"""Plain functions run through a meter, as tasks are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.app.trace import TraceInfo, trace_ok_t

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter.calibration import calibrated_meter
from celery_memory_exporter.agent.meter.conditions import Conditions, OnClose, OnOpen
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.profile import WIDTH, Column, Failed
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.stats.tally import TaskTotals
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

#: What runs leave behind.
KEPT: list[Any] = []


def make_meter(
    *, on_open: OnOpen | None = None, on_close: OnClose | None = None, **options: Any
) -> Meter:
    """One that reads in every run, however crowded the machine, and audits none."""
    conditions = Conditions(**{"max_tasks": 200, "audits": False, **options})
    meter = calibrated_meter(Guard(), Readings(), conditions, on_open=on_open, on_close=on_close)
    meter.sampler.budget = Budget(share=0.0, credit=1e6)
    return meter


def answer(info: TraceInfo | None = None, value: Any = None) -> trace_ok_t:
    """The runtime and the text are new objects, as Celery's are."""
    return trace_ok_t(value, info, float("0.25"), f"repr of {value!r:.10}")


def failure() -> trace_ok_t:
    try:
        raise KeyError("x")  # an exception with its traceback is wanted
    except KeyError as error:
        return trace_ok_t(ExceptionInfo(), TraceInfo("FAILURE", error), None, None)


def run(
    meter: Meter,
    body: Callable[[], Any],
    name: str = "t",
    times: int = 1,
    queue: str | None = "celery",
) -> TaskTotals:
    """The task's row after so many runs; a successful run's value is what ``body`` returns."""
    request = {"delivery_info": {"routing_key": queue}}
    trace = measured(meter, name, lambda *_: answer(value=body()))
    for _ in range(times):
        trace("uuid", (), {}, request)
    return meter.totals.rows[name, queue or ""]


def retained(meter: Meter, name: str = "t", queue: str = "celery") -> tuple[float, float, float]:
    """Blocks and native bytes per run, and how many runs were measured, without the first one."""
    row = meter.totals.growth[name, queue].row
    blocks, native, runs = row.retained()
    after_the_first = row.figures[WIDTH : Failed.AUDITS]
    measured_runs = sum(
        sum(after_the_first[column::WIDTH]) for column in (Column.AUDITED, Column.SAMPLED)
    )
    return (blocks / runs, native / runs, measured_runs) if runs else (0.0, 0.0, measured_runs)


def retained_bytes(meter: Meter) -> float:
    """Per run; without audits all of it counts as blocks."""
    blocks, native, _ = retained(meter)
    return blocks * MEAN_BLOCK_BYTES + native


def sampled(meter: Meter) -> tuple[float, float]:
    """Runs that were read without an audit, past the first, and their bytes."""
    row = meter.totals.growth["t", "celery"].row
    columns = (Column.SAMPLED, Column.SAMPLED_BYTES)
    count, size = (sum(row.figures[WIDTH + column : Failed.AUDITS : WIDTH]) for column in columns)
    return count, size
