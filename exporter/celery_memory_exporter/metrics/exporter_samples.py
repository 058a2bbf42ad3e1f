"""Samples of the exporter itself: what it is, how its sources do, and what it has received."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass

import celery

from celery_memory_exporter.common.version import __version__
from celery_memory_exporter.fleet.snapshot import Snapshot, SourceView
from celery_memory_exporter.metrics.samples import Samples


@dataclass(frozen=True, slots=True)
class Build:
    """Versions of the exporter and of what it runs on; the labels of ``build_info``, in order."""

    version: str = __version__
    python_version: str = dataclasses.field(default_factory=platform.python_version)
    celery_version: str = celery.__version__


def add_exporter(samples: Samples, snapshot: Snapshot, build: Build) -> None:
    samples.add("celery_memory_exporter_build_info", dataclasses.astuple(build), 1)
    for name, value in (
        ("celery_memory_exporter_workers", len(snapshot.workers)),
        ("celery_memory_exporter_reports_received_total", snapshot.reports_received),
        ("celery_memory_exporter_tasks_in_flight", snapshot.tasks_in_flight),
        ("celery_memory_exporter_event_lag_seconds", snapshot.event_lag_seconds),
        ("celery_memory_exporter_broker_reconnects_total", snapshot.broker_reconnects),
    ):
        samples.add(name, (), value)
    for name, counts in (
        ("celery_memory_exporter_reports_rejected_total", snapshot.reports_rejected),
        (
            "celery_memory_exporter_events_received_total",
            dict(sorted(snapshot.events_received.items())),
        ),
        ("celery_memory_exporter_events_ignored_total", snapshot.events_ignored),
        ("celery_memory_exporter_series_dropped_total", dict(sorted(snapshot.dropped.items()))),
    ):
        for label, count in counts.items():
            samples.add(name, (label,), count)
    for source, view in sorted(snapshot.sources.items()):
        add_source(samples, source, view)


def add_source(samples: Samples, source: str, view: SourceView) -> None:
    samples.add("celery_memory_exporter_source_up", (source,), view.up)
    duration = view.duration_seconds
    samples.add("celery_memory_exporter_collect_duration_seconds", (source,), duration)
    for what, denied in sorted(view.denied.items()):
        samples.add("celery_memory_exporter_access_denied", (what,), denied)
