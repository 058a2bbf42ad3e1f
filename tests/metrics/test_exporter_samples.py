"""What the exporter tells of itself."""

from __future__ import annotations

import platform

import celery

from celery_memory_exporter import __version__
from celery_memory_exporter.fleet.snapshot import Snapshot, SourceView
from celery_memory_exporter.metrics.exporter_samples import Build, add_exporter
from celery_memory_exporter.metrics.samples import Samples


def shown(snapshot: Snapshot, build: Build | None = None) -> dict[tuple[str, ...], float]:
    samples = Samples()
    add_exporter(samples, snapshot, build or Build())
    return {
        (each.name.removeprefix("celery_memory_exporter_"), *each.labels.values()): each.value
        for metric in samples.metrics()
        for each in metric.samples
    }


def test_the_build_is_that_of_this_process() -> None:
    built = ("build_info", __version__, platform.python_version(), celery.__version__)
    assert built in shown(Snapshot(()))


def test_before_anything_is_received_there_are_zeros_and_no_lag() -> None:
    told = shown(Snapshot(()), Build("1", "2", "3"))
    assert told == {
        ("build_info", "1", "2", "3"): 1,
        ("workers",): 0,
        ("reports_received_total",): 0,
        ("tasks_in_flight",): 0,
        ("broker_reconnects_total",): 0,
    }


def test_a_source_tells_how_it_does_and_what_it_is_denied() -> None:
    source = SourceView(up=False, duration_seconds=0.5, denied={"processes": True})
    told = shown(Snapshot((), sources={"processes": source, "broker": SourceView(True, None)}))
    assert told[("source_up", "processes")] == 0
    assert told[("source_up", "broker")] == 1
    assert told[("access_denied", "processes")] == 1
    assert told[("collect_duration_seconds", "processes")] == 0.5
    assert ("collect_duration_seconds", "broker") not in told


def test_counts_are_by_what_they_are_of() -> None:
    told = shown(Snapshot((), reports_rejected={"stale": 2}, dropped={"celery_worker_info": 3}))
    assert told[("reports_rejected_total", "stale")] == 2
    assert told[("series_dropped_total", "celery_worker_info")] == 3
