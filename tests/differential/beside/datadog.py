"""Datadog's tracer, ddtrace, with its Celery integration: its spans."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tests.differential.beside.records import Record

#: Read when it is imported. What it tells of itself goes nowhere.
SETTINGS = {
    "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
    "DD_CELERY_DISTRIBUTED_TRACING": "true",
    "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
    "DD_REMOTE_CONFIGURATION_ENABLED": "false",
    "DD_CRASHTRACKING_ENABLED": "false",
}
#: Tags that differ from run to run.
LEFT_OUT = ("_dd.p.tid", "process_id", "runtime-id")


def start(tell: Callable[[Record], None]) -> None:
    os.environ.update(SETTINGS)
    from ddtrace import patch
    from ddtrace.trace import TraceFilter, tracer

    class Sink(TraceFilter):
        def process_trace(self, trace: list[Any]) -> None:
            for span in trace:
                tell(record_of(span))

    tracer.configure(trace_processors=[Sink()])
    patch(celery=True)


def record_of(span: Any) -> Record:
    tags = {key: value for key, value in span.get_tags().items() if key not in LEFT_OUT}
    what = [span.name, span.resource, span.service, span.error, dict(sorted(tags.items()))]
    parent = str(span.parent_id) if span.parent_id else None
    return Record(str(span.span_id), parent, str(span.trace_id), what)
