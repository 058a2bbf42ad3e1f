"""Sentry: errors, transactions and their spans, as they would leave for its server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.redis import RedisIntegration
from sentry_sdk.transport import Transport

from tests.differential.beside.records import Record


def start(tell: Callable[[Record], None]) -> None:
    class Sink(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            for item in envelope.items:
                if item.type in ("event", "transaction"):
                    for record in records_of(item.payload.json):
                        tell(record)

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        transport=Sink,
        traces_sample_rate=1.0,
        integrations=[CeleryIntegration()],
        disabled_integrations=[RedisIntegration()],
    )


def records_of(event: Any) -> Iterator[Record]:
    trace = event["contexts"]["trace"]
    crumbs = [each["category"] for each in event.get("breadcrumbs", {}).get("values", ())]
    if event.get("type") == "transaction":
        what = [event["transaction"], trace["op"], trace.get("status"), crumbs]
        yield Record(trace["span_id"], trace.get("parent_span_id"), trace["trace_id"], what)
        for span in event["spans"]:
            what = [span["op"], span["description"], span.get("status")]
            yield Record(span["span_id"], span["parent_span_id"], span["trace_id"], what)
        return
    told = [event.get(key) for key in ("transaction", "level", "logentry")]
    what = [*told, [exception_of(each) for each in event.get("exception", {}).get("values", ())]]
    yield Record(event["event_id"], trace["span_id"], trace["trace_id"], [*what, crumbs])


def exception_of(value: Any) -> Any:
    functions = [frame["function"] for frame in value["stacktrace"]["frames"]]
    return [value["type"], value["value"], value["mechanism"], functions]
