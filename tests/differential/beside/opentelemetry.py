"""OpenTelemetry's Celery instrumentation: its spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from tests.differential.beside.records import Record


def start(tell: Callable[[Record], None]) -> None:
    class Sink(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            for span in spans:
                tell(record_of(span))
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Sink()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


def record_of(span: Any) -> Record:
    events = [[event.name, event.attributes.get("exception.type")] for event in span.events]
    status = [span.status.status_code.name, span.status.description]
    what = [span.name, span.kind.name, status, events, dict(sorted(span.attributes.items()))]
    parent = f"{span.parent.span_id:x}" if span.parent else None
    return Record(f"{span.context.span_id:x}", parent, f"{span.context.trace_id:x}", what)
