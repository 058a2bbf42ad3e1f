"""Snapshot -> what the page shows, by values."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from celery_memory_exporter import __version__
from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import Container, ObjectCount, Running
from celery_memory_exporter.fleet.facts import QueueReading
from celery_memory_exporter.fleet.snapshot import (
    GroupView,
    QueueView,
    SourceView,
    WorkerView,
)
from celery_memory_exporter.fleet.totals import AgentTotals, Totals
from celery_memory_exporter.web.overview import overview
from celery_memory_exporter.web.rss_history import RssHistory
from tests import samples
from tests.diagnosis.evidence import evidence_of, snapshot_of, view

MIB = samples.MIB


def worker(
    nodename: str = "celery@web1", *tasks: Any, report: dict[str, Any] | None = None, **changes: Any
) -> WorkerView:
    """One with the agent; without tasks it leaks."""
    seen = view(None)
    assert seen.report is not None
    told = dataclasses.replace(seen.report, tasks=list(tasks) or [samples.task()], **(report or {}))
    return dataclasses.replace(
        seen, **{"nodename": nodename, "report": told, "cgroup": told.cgroup, **changes}
    )


def fine(name: str = "shop.fine") -> Any:
    return samples.task(
        name, growth_bytes=0.0, release_bytes=0.0, evidence=evidence_of(lambda _: 0.0)
    )


def told(*workers: WorkerView, history: RssHistory | None = None, **changes: Any) -> dict[str, Any]:
    snapshot = dataclasses.replace(snapshot_of(*workers), **changes)
    result: dict[str, Any] = json.loads(
        json.dumps(overview(snapshot, history or RssHistory(), 1_000.25))
    )
    return result


def only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = rows
    return row


def test_nothing_known() -> None:
    assert told() == {
        "version": __version__,
        "generated_at": 1_000.25,
        "several_brokers": False,
        "sources": {},
        "suspects": [],
        "cleared": [],
        "workers": [],
        "queues": [],
    }


def test_a_worker_with_the_agent() -> None:
    history = RssHistory()
    leaking = worker(
        report={
            "objects": [ObjectCount("dict", 20_000, -5), ObjectCount("shop.MyCacheEntry", 160, 160)]
        },
        pool="prefork",
        concurrency=2,
        active_tasks=1,
        prefetched_tasks=3,
        running=(Running("shop.leak", 1, 0.75),),
    )
    history.add(snapshot_of(leaking), 0.0)
    row = only(told(leaking, history=history)["workers"])
    assert [each["process"] for each in row.pop("processes")] == ["main", "0", "1"]
    assert row.pop("retained_bytes_per_hour") > 0
    assert row.pop("seconds_to_limit") > 0
    assert row == {
        "nodename": "celery@web1",
        "broker": "",
        "members": 1,
        "up": True,
        "agent": True,
        "age_seconds": None,
        "pool": "prefork",
        "concurrency": 2,
        "active_tasks": 1,
        "prefetched_tasks": 3,
        "growth_class": "python",
        "leaking": True,
        "rss_bytes": 170 * MIB,
        "limit_bytes": 512 * MIB,
        "rss_history": {"step_seconds": 15.0, "bytes": [170 * MIB]},
        "object_types": [{"type": "shop.MyCacheEntry", "count": 160, "growth": 160}],
        "containers": [],
        "running": [{"name": "shop.leak", "count": 1, "oldest_seconds": 0.75}],
    }


def test_a_process_of_a_worker() -> None:
    row = only(told(worker())["workers"])
    assert row["processes"][0] == {
        "process": "main",
        "pid": 100,
        "rss_bytes": 50 * MIB,
        "peak_rss_bytes": 60 * MIB,
        "open_fds": 20,
        "threads": 2,
    }


def test_the_age_of_a_group_is_that_of_the_member_heard_last() -> None:
    members = worker(age_seconds=70.25), worker(age_seconds=4.06), worker()
    assert only(told(groups=(GroupView(members),))["workers"])["age_seconds"] == 4.1


def test_a_worker_without_the_agent_is_not_judged() -> None:
    bare = WorkerView(
        "celery@bare", up=True, live=False, report=None, processes=(), cgroup=CgroupMemory()
    )
    row = only(told(bare)["workers"])
    assert (row["agent"], row["leaking"], row["growth_class"], row["rss_bytes"]) == (
        False,
        False,
        None,
        None,
    )
    assert (row["limit_bytes"], row["seconds_to_limit"], row["pool"], row["concurrency"]) == (
        None,
        None,
        None,
        None,
    )


def test_what_a_worker_in_the_past_once_told_is_not_shown_as_its_state() -> None:
    row = only(told(worker(live=False, up=False, processes=()))["workers"])
    assert (row["up"], row["agent"], row["object_types"], row["containers"]) == (
        False,
        False,
        [],
        [],
    )


def test_one_task_type_that_leaks_in_many_workers_is_one_suspect() -> None:
    slow = dataclasses.replace(samples.evidence(), seconds=600.0)
    workers = [worker(f"celery@web{number}") for number in range(4)]
    workers.append(worker("celery@slow", samples.task(evidence=slow)))
    one = only(told(workers[0])["suspects"])
    all_of_them = only(told(*workers)["suspects"])
    assert all_of_them["task"] == "shop.leak"
    assert all_of_them["worker_count"] == 5
    assert [each["nodename"] for each in all_of_them["workers"]] == [
        "celery@web0",
        "celery@web1",
        "celery@web2",
    ]
    assert all_of_them["retained_bytes_per_run"] == one["retained_bytes_per_run"]
    assert round(all_of_them["retained_bytes_per_hour"] / one["retained_bytes_per_hour"], 2) == 4.1
    assert all_of_them["holders"][0]["path"] == "shop._my_app_cache"


def test_suspects_are_worst_first() -> None:
    many = dataclasses.replace(samples.evidence(), seconds=6.0)
    found = told(
        worker("celery@a", samples.task("shop.drip")),
        worker("celery@b", samples.task("shop.flood", evidence=many)),
    )
    assert [each["task"] for each in found["suspects"]] == ["shop.flood", "shop.drip"]


def test_one_name_at_two_brokers_is_two_workers() -> None:
    both = told(
        worker(broker="eu"), worker("celery@web1", fine(), broker="us"), several_brokers=True
    )
    assert [(each["broker"], each["leaking"]) for each in both["workers"]] == [
        ("eu", True),
        ("us", False),
    ]
    assert only(both["suspects"])["workers"] == [{"broker": "eu", "nodename": "celery@web1"}]


def test_members_of_a_group_are_one_row() -> None:
    report = {
        "containers": [Container("shop.CACHE", "dict", 5, 5)],
        "objects": [ObjectCount("shop.Entry", 10, 4)],
    }
    first = worker("celery@web", report=report, concurrency=2, active_tasks=1)
    second = worker("celery@web", fine(), report=report, concurrency=2)
    kept = Totals(agent=AgentTotals.of(samples.report()))
    row = only(told(groups=(GroupView((first, second), kept),))["workers"])
    assert (row["members"], row["concurrency"], row["active_tasks"], row["leaking"]) == (
        2,
        4,
        1,
        True,
    )
    assert (row["rss_bytes"], row["limit_bytes"], len(row["processes"])) == (
        340 * MIB,
        1024 * MIB,
        6,
    )
    assert row["object_types"] == [{"type": "shop.Entry", "count": 20, "growth": 8}]
    assert row["growth_class"] == "python"


def test_only_the_fastest_growing_types_are_told() -> None:
    objects = [ObjectCount(f"shop.T{number}", 100, number) for number in range(9)]
    row = only(told(worker(report={"objects": objects}))["workers"])
    assert [each["growth"] for each in row["object_types"]] == [8, 7, 6, 5, 4]


def test_what_was_cleared_is_told_once_with_the_undecided_last() -> None:
    few = samples.task(
        "shop.a_new_one", runs={"succeeded": 3}, evidence=evidence_of(lambda _: 0.0, runs=3)
    )
    cleared = told(worker("celery@a", few, fine()), worker("celery@b", fine()))["cleared"]
    assert [(each["task"], each["growth_class"], each["worker_count"]) for each in cleared] == [
        ("shop.fine", "steady", 2),
        ("shop.a_new_one", "unsettled", 1),
    ]
    assert cleared[0]["runs"] == 20


def test_queues_and_sources() -> None:
    queue = QueueView("", QueueReading("mail", 7, {}, 1, 12.5), 2, 8)
    state = told(
        queues=(queue,),
        sources={"queues": SourceView(False, None), "broker": SourceView(True, None)},
    )
    assert only(state["queues"]) == {
        "broker": "",
        "name": "mail",
        "length": 7,
        "oldest_seconds": 12.5,
        "consumers": 1,
        "workers": 2,
        "processes": 8,
    }
    assert state["sources"] == {"broker": True, "queues": False}
