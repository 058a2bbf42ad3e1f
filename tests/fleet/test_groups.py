"""Workers that come and go, shown as one."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from celery_memory_exporter.common.report import Histogram
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.groups import Groups
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.metrics.collector import FleetCollector
from tests import samples

GROUPS = (
    (re.compile(r"celery@web-.*"), "celery@web"),
    (re.compile(r"celery@(\w+)-\d+"), r"celery@\1"),
)
START, LATER = 0.0, 100.0


class Watched:
    """A fleet and what it shows."""

    def __init__(self, **limits: Any) -> None:
        rules = Rules(samples.BOOT, Limits(**limits), worker_groups=GROUPS)
        self.fleet = Fleet(rules, began=START)
        self.now = START
        self.registry = CollectorRegistry()
        self.registry.register(FleetCollector(lambda: self.fleet.snapshot(self.now)))

    def report(
        self,
        pod: str,
        *,
        pid: int = 100,
        runs: int = 0,
        sequence: int = 1,
        age: float | None = None,
        **changes: Any,
    ) -> None:
        report = samples.report(
            worker=pod,
            instance=samples.instance(pid, started_at=float(pid)),
            sequence=sequence,
            traffic=[samples.traffic(succeeded=runs, runtime=Histogram([runs, 0, 0], 0.5 * runs))],
            **changes,
        )
        assert self.fleet.apply_report(report, self.now, age=age) is None

    def run_by_events(self, pod: str, *uuids: str) -> None:
        for uuid in uuids:
            for kind in ("task-received", "task-started", "task-succeeded"):
                event = samples.task_event(kind, hostname=pod, uuid=uuid, name="shop.leak")
                self.fleet.apply_task_event(kind, event, self.now)

    def value(self, sample: str, **labels: str) -> float | None:
        values = [
            each.value
            for family in self.registry.collect()
            for each in family.samples
            if each.name == sample and labels.items() <= each.labels.items()
        ]
        assert len(values) <= 1, values
        return values[0] if values else None

    def succeeded(self) -> float | None:
        return self.value("celery_task_succeeded_total", worker="celery@web")


@pytest.fixture
def watched() -> Watched:
    """Past its beginning, with a worker that is in no group."""
    watched = Watched()
    watched.report("celery@db", runs=1)
    watched.now = LATER
    watched.report("celery@db", runs=1, sequence=2)
    return watched


def test_members_add_up_and_the_highest_of_some_is_shown(watched: Watched) -> None:
    watched.report("celery@web-a", pid=1, runs=3)
    watched.report("celery@web-b", pid=2, runs=4)
    assert watched.succeeded() == 7
    assert watched.value("celery_task_runtime_bucket", worker="celery@web", le="0.1") == 7
    assert watched.value("celery_task_runtime_sum", worker="celery@web") == 3.5
    assert (
        watched.value("celery_worker_memory_rss_bytes", worker="celery@web", process="1")
        == 140 * samples.MIB
    )
    assert (
        watched.value("celery_worker_child_memory_limit_bytes", worker="celery@web")
        == 200 * samples.MIB
    )
    assert watched.value("celery_worker_up", worker="celery@web", hostname="web") == 1
    assert watched.value("celery_worker_concurrency", worker="celery@web") == 4
    assert watched.value("celery_memory_exporter_workers") == 3
    assert (
        watched.value(
            "celery_worker_gc_collections_total",
            worker="celery@web",
            process="main",
            generation="0",
        )
        is None
    )
    assert (
        watched.value(
            "celery_worker_gc_collections_total", worker="celery@db", process="main", generation="0"
        )
        == 180
    )


@pytest.mark.parametrize("reported", [True, False])
def test_what_a_member_tells_of_the_one_before_it_that_was_killed_counts_once(
    watched: Watched, reported: bool
) -> None:
    """Its last report comes from its successor, before that one's own, and maybe once more."""
    if reported:
        watched.report("celery@web-a", pid=1, runs=3)
    dead = {"pid": 1, "runs": 5, "sequence": 2 if reported else 1, "processes": []}
    watched.report("celery@web-a", **dead)
    assert watched.succeeded() == 5
    watched.report("celery@web-a", pid=2, runs=1)
    assert watched.succeeded() == 6
    with pytest.raises(AssertionError, match="stale"):
        watched.report("celery@web-a", **dead)
    assert watched.succeeded() == 6


def test_a_name_may_be_made_of_the_members(watched: Watched) -> None:
    watched.report("celery@mail-17", runs=5)
    assert watched.value("celery_task_succeeded_total", worker="celery@mail") == 5


def test_what_a_member_counted_stays_when_it_is_gone(watched: Watched) -> None:
    watched.report("celery@web-a", pid=1, runs=3)
    watched.now += 500
    watched.report("celery@web-b", pid=2, runs=4)
    watched.now += 200
    assert watched.succeeded() == 7
    assert watched.value("celery_memory_exporter_workers") == 1
    assert watched.value("celery_worker_concurrency", worker="celery@web") == 2
    assert watched.value("celery_worker_children_started_total", worker="celery@web") == 6
    assert watched.value("celery_task_lost_total", worker="celery@web", reason="oom") == 2
    assert watched.value("celery_worker_cgroup_oom_kills_total", worker="celery@web") == 2


def test_what_a_member_counted_stays_when_it_restarts_under_its_name(watched: Watched) -> None:
    watched.report("celery@web-a", pid=1, runs=30)
    watched.report("celery@web-a", pid=2, runs=4)
    assert watched.succeeded() == 34
    watched.report("celery@web-a", pid=2, runs=6, sequence=2)
    assert watched.succeeded() == 36


def test_the_counters_never_go_back_over_five_hundred_members(watched: Watched) -> None:
    before = 0.0
    for number in range(500):
        watched.report(f"celery@web-{number}", pid=number + 1, runs=2)
        shown = watched.succeeded()
        assert shown is not None
        assert shown == before + 2
        before = shown
        watched.now += 60
    assert watched.value("celery_memory_exporter_workers") == 10
    watched.now += 3_600
    assert watched.fleet.snapshot(watched.now).workers == ()


def test_an_exporter_that_starts_beside_members_of_long_standing_begins_at_zero() -> None:
    watched = Watched()
    watched.report("celery@web-a", pid=1, runs=1_000_000, sequence=500)
    watched.report("celery@db", pid=1, runs=1_000_000)
    assert watched.succeeded() == 0
    assert watched.value("celery_task_succeeded_total", worker="celery@db") == 1_000_000
    watched.report("celery@web-a", pid=1, runs=1_000_007, sequence=501)
    watched.now = LATER
    watched.report("celery@web-b", pid=2, runs=5)
    assert watched.succeeded() == 12


def test_what_a_member_counted_while_reports_did_not_arrive_counts_if_it_started_after_us(
    watched: Watched,
) -> None:
    watched.report("celery@web-a", pid=1, runs=300, sequence=8, age=LATER - START - 1)
    assert watched.succeeded() == 300
    watched.report("celery@web-b", pid=2, runs=1_000, sequence=8, age=LATER - START + 1)
    assert watched.succeeded() == 300
    watched.report("celery@web-c", pid=3, runs=1_000, sequence=8)
    assert watched.succeeded() == 300, "nobody knows when it started"
    watched.report("celery@web-d", pid=4, runs=20, sequence=1, age=LATER - START + 1)
    assert watched.succeeded() == 320, "its first report is its beginning"


def test_a_member_that_started_after_us_and_was_out_of_sight_counts_once(watched: Watched) -> None:
    watched.report("celery@web-a", pid=1, runs=300, age=10)
    watched.report("celery@web-b", pid=2, runs=1)
    watched.now += 500
    watched.report("celery@web-b", pid=2, runs=1, sequence=40)
    watched.now += 200
    watched.report("celery@web-b", pid=2, runs=1, sequence=53)
    watched.report("celery@web-a", pid=1, runs=3_000, sequence=60, age=710)
    assert watched.succeeded() == 301


def test_a_member_that_was_out_of_sight_goes_on_where_it_is_seen_again(watched: Watched) -> None:
    watched.report("celery@web-a", pid=1, runs=300)
    watched.report("celery@web-b", pid=2, runs=1)
    watched.now += 500
    watched.report("celery@web-b", pid=2, runs=1, sequence=40)
    watched.now += 200
    assert watched.succeeded() == 301
    watched.report("celery@web-a", pid=1, runs=3_000, sequence=60)
    assert watched.succeeded() == 301
    watched.report("celery@web-a", pid=1, runs=3_005, sequence=61)
    assert watched.succeeded() == 306


def test_a_member_that_gets_its_agent_goes_on(watched: Watched) -> None:
    watched.run_by_events("celery@web-a", "1", "2", "3", "4", "5")
    watched.report("celery@web-a", pid=1, runs=3)
    assert watched.succeeded() == 5
    watched.report("celery@web-a", pid=1, runs=4, sequence=2)
    assert watched.succeeded() == 6


def test_a_member_that_loses_its_agent_goes_on(watched: Watched) -> None:
    """Until the report has expired, it is still what is shown, and its tasks' events wait."""
    watched.run_by_events("celery@web-a", "1", "2", "3", "4", "5")
    watched.report("celery@web-a", pid=1, runs=3)
    watched.now += 300
    watched.run_by_events("celery@web-a", "6")
    watched.report("celery@web-a", pid=1, runs=4, sequence=2)
    assert watched.succeeded() == 6
    watched.now += 300
    watched.run_by_events("celery@web-a", "7", "8")
    assert watched.succeeded() == 6
    watched.now += 400
    assert watched.succeeded() == 8, "by reading"
    watched.run_by_events("celery@web-a", "9")
    assert watched.succeeded() == 9, "by writing"


def test_what_a_member_did_after_its_agent_fell_silent_stays_when_it_is_gone(
    watched: Watched,
) -> None:
    watched.report("celery@web-a", pid=1, runs=3)
    watched.now += 300
    watched.run_by_events("celery@web-a", "1")
    watched.now += 290
    watched.report("celery@web-b", pid=2)
    watched.now += 20
    assert watched.value("celery_task_succeeded_total", name="shop.leak", worker="celery@web") == 4
    watched.now += 300
    assert watched.succeeded() == 4, "by reading"
    watched.report("celery@web-b", pid=2, sequence=2)
    assert watched.succeeded() == 4, "by writing"


def test_a_member_that_has_run_nothing_without_its_agent_changes_no_buckets(
    watched: Watched,
) -> None:
    bounds = dataclasses.replace(samples.BOUNDS, runtime_seconds=[0.1, 0.7])
    watched.run_by_events("celery@web-a", "1")
    watched.report("celery@web-a", pid=1, runs=1, bounds=bounds)
    watched.report("celery@web-a", pid=1, runs=4, sequence=2, bounds=bounds)
    watched.now += 590
    watched.report("celery@web-b", pid=2, bounds=bounds)
    watched.now += 20
    assert watched.value("celery_task_runtime_bucket", worker="celery@web", le="0.1") == 3
    assert watched.succeeded() == 4


LIVES = st.lists(
    st.tuples(
        st.sampled_from(("run", "report", "wait")),
        st.sampled_from(("celery@web-a", "celery@web-b")),
        st.sampled_from((1.0, 50.0, 250.0)),
    ),
    max_size=20,
)


@given(LIVES)
@example([(what, "celery@web-a", 250.0) for what in ("run", "report", "run", "wait", "wait")])
def test_whoever_tells_of_the_runs_none_is_counted_twice_and_none_is_taken_back(
    life: list[tuple[str, str, float]],
) -> None:
    watched, before, runs = Watched(), 0.0, Counter[str]()
    for what, pod, pause in life:
        watched.now += pause
        watched.fleet.apply_worker_event("celery@web-c", "worker-heartbeat", 0, watched.now)
        if what == "run":
            runs[pod] += 1
            watched.run_by_events(pod, f"{pod} {runs[pod]}")
        elif what == "report":
            watched.report(pod, runs=runs[pod], sequence=1 + int(watched.now))
        shown = watched.succeeded() or 0.0
        assert before <= shown <= runs.total()
        before = shown


def test_the_children_of_a_member_that_loses_its_agent_are_counted_once(watched: Watched) -> None:
    table = [samples.table("celery@web-a", 200, (201, 202))]
    watched.fleet.apply_processes(table, watched.now)
    watched.report("celery@web-a", pid=200, children_started=2)
    for _ in range(3):
        watched.fleet.apply_processes(table, watched.now)
        watched.now += 301
    assert watched.value("celery_worker_children_started_total", worker="celery@web") == 2


def test_counters_go_on_when_buckets_change(watched: Watched) -> None:
    watched.report("celery@web-a", pid=1, runs=3)
    bounds = dataclasses.replace(samples.BOUNDS, runtime_seconds=[0.5, 1.0])
    watched.report("celery@web-a", pid=2, runs=4, bounds=bounds)
    watched.report("celery@web-a", pid=3, runs=5, bounds=bounds)
    assert watched.succeeded() == 12


def test_a_group_without_members_is_forgotten(watched: Watched) -> None:
    watched.report("celery@web-a", pid=1, runs=3)
    watched.now += 700
    assert watched.succeeded() is None
    assert watched.value("celery_memory_exporter_workers") == 0


def test_members_without_an_agent_are_counted_by_their_events(watched: Watched) -> None:
    for pod in ("celery@web-a", "celery@web-b"):
        for kind in ("task-received", "task-started", "task-succeeded"):
            watched.fleet.apply_task_event(
                kind, samples.task_event(kind, hostname=pod, uuid=pod), watched.now
            )
    assert watched.succeeded() == 2
    watched.now += 500
    kind = "task-received"
    watched.fleet.apply_task_event(
        kind, samples.task_event(kind, hostname="celery@web-c", uuid="c"), watched.now
    )
    watched.now += 200
    assert watched.succeeded() == 2


def test_a_name_that_a_worker_outside_has_as_well_makes_no_series_twice(watched: Watched) -> None:
    watched.report("celery@web", pid=1, runs=3)
    watched.report("celery@web-a", pid=2, runs=4)
    assert watched.succeeded() == 7


def test_the_limits_hold_for_the_group() -> None:
    watched = Watched(tasks_per_worker=1)
    watched.report("celery@db", tasks=[], lost=[])
    watched.now = LATER
    watched.report("celery@web-a", pid=1, runs=3, tasks=[], lost=[])
    report = samples.report(
        worker="celery@web-b", tasks=[], lost=[], traffic=[samples.traffic("another")]
    )
    watched.fleet.apply_report(report, watched.now)
    names = {
        each.labels["name"]
        for family in watched.registry.collect()
        for each in family.samples
        if "name" in each.labels
    }
    assert names == {"shop.leak", "other"}


def test_exceptions_of_members_that_restart_are_bounded() -> None:
    watched = Watched(exceptions_per_task=2)
    for number in range(1, 6):
        report = samples.report(
            worker="celery@web-a",
            instance=samples.instance(number, started_at=float(number)),
            sequence=1,
            traffic=[samples.traffic(failed={f"Error{number}": 1})],
        )
        watched.fleet.apply_report(report, watched.now)
    watched.now = 100.0
    watched.fleet.apply_worker_event("celery@web-b", "worker-heartbeat", 0, watched.now)
    watched.now = 601.0  # the last of them is silent
    shown = {
        each.labels["exception"]: each.value
        for family in watched.registry.collect()
        for each in family.samples
        if each.name == "celery_task_failed_total"
    }
    assert shown == {"": 0.0, "Error1": 1.0, "Error2": 1.0, "other": 3.0}


def test_a_worker_is_in_the_group_of_the_first_rule_that_its_whole_name_matches() -> None:
    groups = Groups(GROUPS, Limits(), START)
    found = {name: groups.of("", name) for name in ("celery@web-1", "celery@mail-1", "x@web-1")}
    assert {name: group.name if group else None for name, group in found.items()} == {
        "celery@web-1": "celery@web",
        "celery@mail-1": "celery@mail",
        "x@web-1": None,
    }
    assert groups.of("", "celery@web-2") is found["celery@web-1"]
    assert groups.of("eu", "celery@web-1") is not found["celery@web-1"]
