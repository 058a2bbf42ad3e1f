"""The task's tracer with the meter's readings around it: ``task.__trace__`` is the one call around
a run in every pool.

A tracer that is measured already bears a mark, so that however often the worker's tasks are gone
through, each of their runs is measured once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from celery_memory_exporter.agent.meter.run import Run
from celery_memory_exporter.common.names import short_name

Trace = Callable[..., Any]

#: Attribute of a tracer with readings around it. Whoever wraps it by ``functools.wraps`` hands the
#: mark on, and rightly so: the readings are taken inside.
MARK = "celery_memory_measured"


class RunMeter(Protocol):
    """What is done around a run, in this order; see ``Meter``. The last two only where the run is
    still active or audited, and where its answer is stashed."""

    def open(self, run: Run, name: str, request: Any) -> None: ...

    def settle(self, run: Run, answer: Any) -> Any: ...

    def close(self, run: Run, answer: Any, *, aborted: bool = False) -> None: ...

    def leave(self, run: Run) -> None: ...

    def restore(self, answer: Any) -> Any: ...


def wrap_tasks(meter: RunMeter, tasks: dict[str, Any]) -> None:
    """Wraps the tracer of each task that is not wrapped yet; Celery builds new ones at each
    (re)start."""
    for name, task in list(tasks.items()):
        trace = task.__dict__.get("__trace__") or getattr(task, "__trace__", None)
        if trace is not None and not getattr(trace, MARK, False):
            task.__trace__ = measured(meter, short_name(name), trace)


def measured(meter: RunMeter, name: str, trace: Trace) -> Trace:
    """The task's tracer with readings around it: same arguments, same answer (without the value of
    a successful run)."""

    open_run, settle, close, leave = meter.open, meter.settle, meter.close, meter.leave

    def measured_trace(uuid: Any, args: Any, kwargs: Any, request: Any = None) -> Any:
        run = Run()
        try:
            open_run(run, name, request)
            try:
                answer = trace(uuid, args, kwargs, request)
            except BaseException:
                close(run, None, aborted=True)
                raise
            # Rebound, so that what the answer held is gone before the closing readings.
            answer = settle(run, answer)
            close(run, answer)
        finally:  # a soft time limit may be raised between any two instructions
            if run.active or run.audited:
                leave(run)
        return meter.restore(answer) if run.stashed else answer

    setattr(measured_trace, MARK, True)
    return measured_trace
