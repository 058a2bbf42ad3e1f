"""Reports within the exporter's caps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.report import Histogram, LostRuns, ObjectCount
from celery_memory_exporter.fleet.capping import (
    Admitted,
    Limits,
    bounded,
    merge_histograms,
    merge_tasks,
    merge_traffic,
)
from tests import samples


def test_a_report_within_the_caps_is_unchanged() -> None:
    report, dropped = bounded(samples.report(), Admitted(), Limits())
    assert report == samples.report()
    assert not dropped


def test_tasks_beyond_the_cap_are_summed_as_other_and_counted() -> None:
    tasks = [samples.task(f"t{number}") for number in range(5)]
    report, dropped = bounded(
        samples.report(tasks=tasks, traffic=[], lost=[]), Admitted(), Limits(tasks=2)
    )
    assert [task.name for task in report.tasks] == ["t0", "t1", "other"]
    assert report.tasks[2].runs == {"succeeded": 24, "failed": 6}
    assert dropped["celery_task_memory_delta_bytes"] == 3


def test_a_task_once_admitted_stays_however_the_reports_are_ordered() -> None:
    admitted = Admitted()
    bounded(samples.report(tasks=[samples.task("first")], lost=[]), admitted, Limits(tasks=1))
    report, _ = bounded(
        samples.report(tasks=[samples.task("a"), samples.task("first")], lost=[]),
        admitted,
        Limits(tasks=1),
    )
    assert {task.name for task in report.tasks} == {"other", "first"}


def test_long_names_are_cut_and_those_that_become_equal_are_summed() -> None:
    tasks = [samples.task("x" * 20 + "a"), samples.task("x" * 20 + "b")]
    objects = [ObjectCount("y" * 20 + "a", 1, 1), ObjectCount("y" * 20 + "b", 2, 2)]
    lost = [LostRuns("x" * 20 + "a", "oom", 1), LostRuns("x" * 20 + "b", "oom", 1)]
    report, _ = bounded(
        samples.report(tasks=tasks, objects=objects, lost=lost), Admitted(), Limits(label_length=20)
    )
    assert [(task.name, task.runs["succeeded"]) for task in report.tasks] == [("x" * 20, 16)]
    assert report.objects == [ObjectCount("y" * 20, 3, 3)]
    assert report.lost == [LostRuns("x" * 20, "oom", 2)]


def test_object_types_beyond_the_cap_are_left_out_and_counted() -> None:
    report, dropped = bounded(samples.report(), Admitted(), Limits(object_types=1))
    assert [counted.type for counted in report.objects] == ["shop.MyCacheEntry"]
    assert dropped["celery_worker_objects"] == 1


def test_exceptions_beyond_the_cap_are_summed_as_other() -> None:
    row = merge_traffic(
        "t", "q", [samples.traffic(failed={"A": 1, "B": 2, "C": 3})], Limits(exceptions=2)
    )
    assert row.failed == {"A": 1, "B": 2, "other": 3}


def test_what_one_part_does_not_know_does_not_become_zero() -> None:
    unknown = samples.task(retained_native_bytes=None, peak=None)
    assert merge_tasks("t", "", [unknown, unknown], Limits()).retained_native_bytes is None
    assert merge_tasks("t", "", [unknown, unknown], Limits()).peak is None


@given(st.lists(st.lists(st.integers(0, 2**40), min_size=3, max_size=3), min_size=1, max_size=6))
def test_merged_histograms_hold_every_observation(counts: list[list[int]]) -> None:
    merged = merge_histograms([Histogram(each, float(sum(each))) for each in counts])
    assert sum(merged.counts) == sum(map(sum, counts))
    assert merged == merge_histograms(
        [Histogram(each, float(sum(each))) for each in reversed(counts)]
    )
