"""Parts of reports added up, field by field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.evidence import Estimate, Evidence, Fill, Holder, Profile, Site
from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import Histogram, LostRuns, Running, TaskReport, Traffic
from celery_memory_exporter.fleet.sums import by_name, scaled, together, total
from celery_memory_exporter.fleet.totals import TrafficView
from tests import samples

MAKERS: list[Callable[[], Any]] = [samples.traffic, samples.task, samples.evidence]


def figures(value: Any) -> list[float]:
    """All numbers in it, wherever."""
    if dataclasses.is_dataclass(value):
        return [
            each
            for field in dataclasses.fields(value)
            for each in figures(getattr(value, field.name))
        ]
    if isinstance(value, dict):
        return [each for one in value.values() for each in figures(one)]
    if isinstance(value, (list, tuple)):
        return [each for one in value for each in figures(one)]
    return [value] if isinstance(value, (int, float)) else []


@pytest.mark.parametrize("make", [samples.traffic, samples.profile])
def test_each_figure_of_a_sum_is_the_sum_of_its_figures(make: Callable[[], Any]) -> None:
    assert figures(total([make()] * 3)) == [3 * each for each in figures(make())]


@pytest.mark.parametrize("make", MAKERS)
def test_one_part_is_its_own_sum(make: Callable[[], Any]) -> None:
    assert total([make()]) == make()


@given(st.lists(st.lists(st.integers(0, 2**40), min_size=3, max_size=3), min_size=1, max_size=6))
def test_summed_histograms_hold_every_observation(counts: list[list[int]]) -> None:
    parts = [Histogram(each, float(sum(each))) for each in counts]
    summed = total(parts)
    assert sum(summed.counts) == sum(map(sum, counts))
    assert summed == total(parts[::-1])


def test_histograms_of_other_bounds_are_no_sum() -> None:
    with pytest.raises(ValueError, match="zip"):
        total([Histogram([1, 2], 1.0), Histogram([1, 2, 3], 1.0)])


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=5))
def test_a_row_taken_so_many_times_is_its_sum_with_itself(factors: list[int]) -> None:
    row = samples.traffic()
    assert total([scaled(row, factor) for factor in factors]) == scaled(row, sum(factors))


def test_bounds_are_neither_multiplied_nor_added_up() -> None:
    view = TrafficView((0.1, 1.0), (0.5, 5.0), (samples.traffic(),))
    assert scaled(view, -1) == dataclasses.replace(view, rows=(scaled(view.rows[0], -1),))
    assert total([view, view]) == dataclasses.replace(view, rows=(scaled(view.rows[0], 2),))


def test_what_one_part_does_not_know_is_the_other_parts() -> None:
    unknown = samples.task(retained_native_bytes=None, peak=None, evidence=None)
    summed = total([unknown, samples.task()])
    assert (summed.retained_native_bytes, summed.peak, summed.evidence) == (
        samples.task().retained_native_bytes,
        samples.task().peak,
        samples.task().evidence,
    )


def test_what_no_part_knows_is_not_zero() -> None:
    unknown = samples.task(retained_native_bytes=None, peak=None, evidence=None)
    summed = total([unknown, unknown])
    assert (summed.retained_native_bytes, summed.peak, summed.evidence) == (None, None, None)
    assert total([CgroupMemory(), CgroupMemory(oom_kills=2)]) == CgroupMemory(oom_kills=2)


def test_records_of_one_key_are_one_in_the_order_in_which_they_first_came() -> None:
    lost = [LostRuns("b", "oom", 1), LostRuns("a", "oom", 2), LostRuns("b", "oom", 4)]
    assert together(lost) == [LostRuns("b", "oom", 5), LostRuns("a", "oom", 2)]
    other = LostRuns("b", "signal", 8)
    assert together([*lost, other])[-1] == other


def test_of_running_tasks_the_oldest_is_the_oldest_of_all() -> None:
    running = [Running("t", 1, 5.0), Running("t", 2, 7.0), Running("t", 1, 6.0)]
    assert together(running) == [Running("t", 4, 7.0)]


def test_a_profile_ends_with_the_last_age_of_any_part() -> None:
    columns = {each.name: [1.0] for each in dataclasses.fields(Profile)}
    short, long = Profile(**columns), Profile(**{name: [1.0, 2.0] for name in columns})
    assert total([short, long]) == Profile(**{name: [2.0, 2.0] for name in columns})


# --- evidence -----------------------------------------------------------------------------------


def evidence(runs: float, **changes: Any) -> Evidence:
    columns: dict[str, list[float]] = {each.name: [0.0] for each in dataclasses.fields(Profile)}
    return samples.evidence(profile=Profile(**(columns | {"runs": [runs]})), **changes)


def test_processes_and_time_are_the_same_for_all_queues_of_a_worker() -> None:
    summed = total(
        [
            evidence(1, processes=2.0, growing=1.0, seconds=60.0),
            evidence(1, processes=3.0, growing=0.0, seconds=20.0),
        ]
    )
    assert (summed.processes, summed.growing, summed.seconds) == (3.0, 1.0, 60.0)


def test_survivors_sites_and_paths_come_together_with_the_largest_first() -> None:
    summed = total(
        [
            evidence(1, survivors={"a": 1, "b": 2}, sites=[Site("x", "bytes", 1.0)], paths=["p"]),
            evidence(
                1,
                survivors={"a": 4},
                sites=[Site("y", "bytes", 4.0), Site("x", "bytes", 2.0)],
                paths=["q", "p"],
            ),
        ]
    )
    assert list(summed.survivors.items()) == [("a", 5), ("b", 2)]
    assert summed.sites == [Site("y", "bytes", 4.0), Site("x", "bytes", 3.0)]
    assert summed.paths == ["p", "q"]


def test_a_container_has_its_items_once_whichever_queue_the_runs_came_by() -> None:
    share = Estimate(1.0, 0.1, 1.0, 0.1, 10, 20)
    summed = total(
        [
            evidence(1, holders=[Holder("shop.A", "dict", 100, 3.0)]),
            evidence(1, holders=[Holder("shop.A", "dict", 90, 5.0, limit=200, share=share)]),
        ]
    )
    assert summed.holders == [Holder("shop.A", "dict", 100, 8.0, limit=200, share=share)]


def test_what_other_queues_added_meanwhile_is_in_the_queue_with_most_runs() -> None:
    estimate = Estimate(1.0, 0.1, 1.0, 0.1, 10, 20)
    most = {
        "fills": [Fill("shop.A", [1.0], [2.0])],
        "overlapping": estimate,
        "collections": 5,
        "tmpfs": estimate,
    }
    summed = total([evidence(1, collections=7), evidence(9, **most), evidence(2)])
    assert {name: getattr(summed, name) for name in most} == most
    assert summed.profile.runs == [12.0]


# --- over queues --------------------------------------------------------------------------------


def task_on(name: str, queue: str, runs: int) -> TaskReport:
    return samples.task(name, queue, runs={"succeeded": runs}, evidence=None)


def test_a_task_type_is_summed_over_its_queues_by_name() -> None:
    found = by_name([task_on("b", "x", 1), task_on("a", "x", 2), task_on("b", "y", 4)])
    assert [(task.name, task.queue, task.runs["succeeded"]) for task in found] == [
        ("a", "", 2),
        ("b", "", 5),
    ]


def test_a_sum_over_queues_cuts_no_name() -> None:
    long = "shop." + "x" * 200
    parts = [samples.task(queue=queue, evidence=evidence(1, paths=[long])) for queue in "ab"]
    (task,) = by_name(parts)
    assert task.evidence is not None
    assert task.evidence.paths == [long]


def test_traffic_of_one_task_on_two_queues_stays_apart() -> None:
    rows: list[Traffic] = [samples.traffic(queue="a"), samples.traffic(queue="b")]
    assert together(rows) == rows
