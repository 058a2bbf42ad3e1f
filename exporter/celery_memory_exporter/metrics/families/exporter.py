"""Families of the exporter itself."""

from __future__ import annotations

from celery_memory_exporter.metrics.families.family import Family


def _own(name: str, kind: str, doc: str, *labels: str) -> Family:
    return Family(f"celery_memory_exporter_{name}", kind, labels, doc)


EXPORTER: tuple[Family, ...] = (
    _own(
        "build_info",
        "info",
        "Versions of the exporter and what it runs on.",
        "version",
        "python_version",
        "celery_version",
    ),
    _own("workers", "gauge", "Workers known now."),
    _own("source_up", "gauge", "1 while the source works: broker, queues, processes.", "source"),
    _own(
        "access_denied",
        "gauge",
        "1 while the kernel denies the process table: processes (hidepid hides them, and no worker "
        "is seen), shared_memory (PSS and USS of a worker's process).",
        "what",
    ),
    _own(
        "collect_duration_seconds",
        "gauge",
        "How long the last collection of a source took.",
        "source",
    ),
    _own(
        "reports_received_total", "counter", "Reports received from agents, refused ones included."
    ),
    _own("reports_rejected_total", "counter", "Reports refused, by why.", "reason"),
    _own("events_received_total", "counter", "Events received, by group.", "group"),
    _own(
        "events_ignored_total",
        "counter",
        "Task events that could not be counted, by why: malformed, unknown_task, evicted, "
        "repeated.",
        "reason",
    ),
    _own(
        "events_lost_total",
        "counter",
        "Tasks that a worker without an agent started, by its own count, and whose events did not "
        "get here; at least.",
        "worker",
    ),
    _own(
        "tasks_in_flight",
        "gauge",
        "Tasks of workers without an agent that are remembered until they are done.",
    ),
    _own(
        "event_lag_seconds",
        "gauge",
        "Age of the last event when it was handled, by its sender's clock.",
    ),
    _own("broker_reconnects_total", "counter", "Connections to the broker that were lost."),
    _own(
        "series_dropped_total",
        "counter",
        "What a cap kept from becoming series, by the family that has the cap.",
        "family",
    ),
)
