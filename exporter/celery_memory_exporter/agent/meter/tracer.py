"""The task's tracer with the meter's readings around it: ``task.__trace__`` is the one call around
a run in every pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery_memory_exporter.agent.meter.run import Run

if TYPE_CHECKING:
    from celery_memory_exporter.agent.meter.meter import Meter

Trace = Callable[..., Any]


def measured(meter: Meter, name: str, trace: Trace) -> Trace:
    """The task's tracer with readings around it: same arguments, same answer (without the value of
    a successful run)."""

    def measured_trace(uuid: Any, args: Any, kwargs: Any, request: Any = None) -> Any:
        run = Run()
        try:
            meter.open(run, name, request)
            try:
                answer = trace(uuid, args, kwargs, request)
            except BaseException:
                meter.close(run, None, aborted=True)
                raise
            # Rebound, so that what the answer held is gone before the closing readings.
            answer = meter.settle(run, answer)
            meter.close(run, answer)
        finally:  # a soft time limit may be raised between any two instructions
            meter.leave(run)
        return meter.restore(run, answer)

    return measured_trace


MEASURED_CODE = measured(None, "", len).__code__  # type: ignore[arg-type]  # only the code object is wanted
