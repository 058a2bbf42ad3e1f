"""Samples of one worker."""

from __future__ import annotations

import dataclasses
from collections import Counter

from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import ProcessReport
from celery_memory_exporter.fleet.facts import SharedMemory
from celery_memory_exporter.fleet.snapshot import GroupView, ProcessView, WorkerView
from celery_memory_exporter.fleet.totals import AgentTotals, Totals
from celery_memory_exporter.metrics.samples import Samples
from celery_memory_exporter.metrics.worker_samples import (
    PROCESS_FAMILIES,
    add_group,
    add_process,
    add_worker,
)
from tests import samples

#: Fields of a process that are no series: they say which one it is, have labels of their own
#: (collections by generation), or are for the verdict and the advice alone.
NOT_SHOWN = {
    "process",
    "pid",
    "start_ticks",
    "gc_collections",
    "gc_enabled",
    "history",
    "retained_history",
}


def sizes(shown: Samples) -> Counter[str]:
    """How many samples there are, by their names."""
    return Counter(each.name for metric in shown.metrics() for each in metric.samples)


def names(shown: Samples) -> set[str]:
    return set(sizes(shown))


def worker(**changes: object) -> WorkerView:
    report = samples.report()
    processes = tuple(map(ProcessView, report.processes))
    view = WorkerView("celery@web1", True, True, report, processes, report.cgroup)
    return dataclasses.replace(view, **changes)


def test_every_figure_of_a_process_is_shown() -> None:
    fields = {each.name for each in dataclasses.fields(ProcessReport)}
    assert PROCESS_FAMILIES.keys() == fields - NOT_SHOWN


def test_a_figure_that_a_process_could_not_read_is_absent() -> None:
    shown = Samples()
    add_process(shown, "celery@web1", ProcessView(ProcessReport("main", 1, None, rss_bytes=5)))
    assert names(shown) == {"celery_worker_memory_rss_bytes"}


def test_shared_memory_comes_where_it_was_read() -> None:
    shown = Samples()
    view = ProcessView(ProcessReport("main", 1, None), SharedMemory(30, 20))
    add_process(shown, "celery@web1", view)
    assert names(shown) == {"celery_worker_memory_pss_bytes", "celery_worker_memory_uss_bytes"}


def test_of_members_that_are_gone_a_group_shows_what_they_counted_and_no_state() -> None:
    kept = Totals(agent=AgentTotals.of(samples.report()))
    alone, group = Samples(), Samples()
    add_group(alone, GroupView((worker(),)))
    add_group(group, GroupView((worker(),), kept))
    again = sizes(group) - sizes(alone)
    assert "celery_worker_children_exited_total" in again
    assert (
        not {"celery_worker_up", "celery_worker_info", "celery_worker_memory_rss_bytes"}
        & again.keys()
    )
    assert "celery_task_memory_retained_bytes" not in again


def test_what_lives_in_processes_is_shown_while_they_live() -> None:
    alive, silent = Samples(), Samples()
    add_worker(alive, worker())
    add_worker(silent, worker(live=False))
    assert names(alive) - names(silent) == {
        "celery_task_memory_retained_bytes",
        "celery_task_memory_retained_blocks",
        "celery_task_memory_retained_runs",
        "celery_task_retained_objects",
        "celery_task_retained_site_bytes",
        "celery_worker_child_memory_limit_bytes",
        "celery_worker_container_items",
        "celery_worker_objects",
        "celery_worker_objects_growth",
    }


def test_what_nobody_told_of_a_worker_is_an_empty_label() -> None:
    shown = Samples()
    add_worker(shown, worker(report=None, processes=(), cgroup=CgroupMemory()))
    (info,) = [metric for metric in shown.metrics() if metric.name == "celery_worker"]
    assert set(info.samples[0].labels.values()) == {"celery@web1", "web1", ""}
