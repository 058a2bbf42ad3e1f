"""Elastic APM: transactions, spans and errors, as they would leave for its server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import elasticapm
from elasticapm.contrib.celery import register_exception_tracking, register_instrumentation
from elasticapm.transport.base import Transport

from tests.differential.beside.records import Record


def start(tell: Callable[[Record], None]) -> None:
    client = elasticapm.Client(
        service_name="differential",
        server_url="http://127.0.0.1:9",
        transport_class=f"{__name__}.{Sink.__name__}",
        central_config=False,
        cloud_provider="none",
        metrics_interval="0s",
        # Which depends on how long they take.
        span_compression_enabled=False,
    )
    Sink.tell = staticmethod(tell)
    register_exception_tracking(client)
    register_instrumentation(client)


class Sink(Transport):
    """In the place of a thread that sends."""

    tell: Callable[[Record], None]

    def queue(self, event_type: str, data: Any, flush: bool = False) -> None:
        if event_type in ("transaction", "span", "error"):
            self.tell(record_of(event_type, data))

    def start_thread(self, pid: int | None = None) -> None:
        """Has none."""

    def stop_thread(self) -> None:
        """Has none."""

    def close(self) -> None:
        """Has nothing left."""


def record_of(kind: str, data: Any) -> Record:
    told = [data.get(key) for key in ("name", "type", "result", "outcome", "culprit")]
    exception = data.get("exception") or {}
    functions = [frame["function"] for frame in exception.get("stacktrace", ())]
    what = [kind, *told, exception.get("type"), exception.get("message"), functions]
    return Record(data["id"], data.get("parent_id"), data["trace_id"], what)
