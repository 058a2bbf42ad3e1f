"""Samples of task types."""

from __future__ import annotations

import dataclasses

from celery_memory_exporter.common.evidence import Estimate
from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import Histogram, Running
from celery_memory_exporter.fleet.snapshot import WorkerView
from celery_memory_exporter.fleet.totals import TrafficView
from celery_memory_exporter.metrics.samples import Samples
from celery_memory_exporter.metrics.task_samples import (
    TRAFFIC_FAMILIES,
    add_present,
    add_retained,
    add_task_memory,
    add_traffic,
)
from tests import samples

BARE = WorkerView(
    "celery@web1", up=True, live=True, report=None, processes=(), cgroup=CgroupMemory()
)


def values(shown: Samples, name: str) -> dict[tuple[str, ...], float]:
    """By the labels' values after worker and task."""
    return {
        tuple(each.labels.values())[2:]: each.value
        for metric in shown.metrics()
        for each in metric.samples
        if each.name == name
    }


def traffic(**changes: object) -> Samples:
    shown = Samples()
    rows = (dataclasses.replace(samples.traffic(), **changes),)
    add_traffic(shown, BARE.nodename, TrafficView((0.1, 1.0), (0.5, 5.0), rows))
    return shown


def test_all_counters_are_there_from_the_first_event_on() -> None:
    shown = traffic(received=1, started=0, succeeded=0, failed={}, retried=0, revoked=0)
    for family, field in TRAFFIC_FAMILIES.items():
        assert values(shown, family) == {("web1", "celery"): float(field == "received")}
    assert values(shown, "celery_task_failed_total") == {("web1", "celery", ""): 0}


def test_failures_are_by_exception_beside_the_zero() -> None:
    shown = traffic(failed={"ValueError": 2, "KeyError": 1})
    assert values(shown, "celery_task_failed_total") == {
        ("web1", "celery", ""): 0,
        ("web1", "celery", "KeyError"): 1,
        ("web1", "celery", "ValueError"): 2,
    }


def test_a_queue_wait_that_nothing_tells_is_absent() -> None:
    assert not values(
        traffic(queue_wait=Histogram([0, 0, 0], 0.0)), "celery_task_queue_wait_time_count"
    )
    assert values(traffic(), "celery_task_queue_wait_time_count")


def memory(**changes: object) -> Samples:
    shown = Samples()
    task = samples.task(**changes)
    add_task_memory(shown, BARE.nodename, samples.BOUNDS, task)
    add_retained(shown, BARE.nodename, task)
    return shown


def test_only_bytes_are_shown_by_line_and_a_run() -> None:
    line = samples.evidence().sites[0]
    evidence = samples.evidence(
        sites=[line, dataclasses.replace(line, figure="descriptors")], traced_audits=4
    )
    shown = memory(evidence=evidence)
    assert values(shown, "celery_task_retained_site_bytes") == {("shop.py:71",): 900.0}


def test_a_type_without_evidence_has_no_survivors_and_no_lines() -> None:
    shown = memory(evidence=None)
    assert not values(shown, "celery_task_retained_objects")
    assert not values(shown, "celery_task_retained_site_bytes")


def test_runtime_is_by_outcome() -> None:
    shown = memory(runs={"succeeded": 8}, seconds={"succeeded": 3.5, "failed": 0.25})
    counts = values(shown, "celery_task_outcome_runtime_seconds_count")
    assert counts == {("succeeded",): 8, ("failed",): 0}


def test_what_runs_now_and_what_is_estimated() -> None:
    worker = dataclasses.replace(
        BARE,
        running=(Running("shop.leak", 2, 5.0),),
        estimates={"shop.leak": Estimate(100.0, 10.0, 0.0, None, 30, 12)},
    )
    shown = Samples()
    add_present(shown, worker)
    told = {each.name: each.value for metric in shown.metrics() for each in metric.samples}
    assert told == {
        "celery_task_memory_estimate_bytes": 100,
        "celery_task_memory_estimate_error_bytes": 10,
        "celery_task_memory_estimate_runs": 30,
        "celery_task_running": 2,
        "celery_task_running_oldest_seconds": 5,
    }
