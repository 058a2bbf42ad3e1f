"""Reports within the exporter's limits."""

from __future__ import annotations

from celery_memory_exporter.common.evidence import Evidence, Fill, Holder, Site
from celery_memory_exporter.common.report import (
    Container,
    LostRuns,
    ObjectCount,
    Running,
    WorkerReport,
)
from celery_memory_exporter.fleet.capping import (
    MAX_CONTAINERS,
    MAX_SITES,
    Admitted,
    cap_exceptions,
    capped,
)
from celery_memory_exporter.fleet.limits import Limits
from tests import samples


def shown(report: WorkerReport, **limits: int) -> WorkerReport:
    return capped(report, Admitted(), Limits(**limits))[0]


def shown_evidence(evidence: Evidence, **limits: int) -> Evidence:
    report = samples.report(tasks=[samples.task(evidence=evidence)])
    (task,) = shown(report, **limits).tasks
    assert task.evidence is not None
    return task.evidence


def test_a_report_within_the_limits_is_unchanged() -> None:
    report, dropped = capped(samples.report(), Admitted(), Limits())
    assert report == samples.report()
    assert not dropped


def test_tasks_beyond_the_limit_are_summed_as_other_and_counted() -> None:
    tasks = [samples.task(f"t{number}") for number in range(5)]
    report, dropped = capped(
        samples.report(tasks=tasks, traffic=[], lost=[]), Admitted(), Limits(tasks_per_worker=2)
    )
    assert [task.name for task in report.tasks] == ["t0", "t1", "other"]
    assert report.tasks[2].runs == {"succeeded": 24, "failed": 6}
    assert dropped == {"celery_task_memory_delta_bytes": 3}


def test_messages_of_tasks_beyond_the_limit_are_summed_as_other_and_counted() -> None:
    rows = [samples.traffic(f"t{number}") for number in range(3)]
    running = [Running("t2", 1, 5.0), Running("t0", 1, 1.0), Running("t1", 2, 9.0)]
    report, dropped = capped(
        samples.report(tasks=[], lost=[], traffic=rows, running=running),
        Admitted(),
        Limits(tasks_per_worker=1),
    )
    assert [(row.name, row.succeeded) for row in report.traffic] == [("t0", 8), ("other", 16)]
    assert report.running == [Running("other", 3, 9.0), Running("t0", 1, 1.0)]
    assert dropped == {"celery_task_received_total": 4}


def test_a_task_once_admitted_stays_however_the_reports_are_ordered() -> None:
    admitted, limits = Admitted(), Limits(tasks_per_worker=1)
    capped(samples.report(tasks=[samples.task("first")], lost=[]), admitted, limits)
    report, _ = capped(
        samples.report(tasks=[samples.task("a"), samples.task("first")], lost=[]), admitted, limits
    )
    assert {task.name for task in report.tasks} == {"other", "first"}


def test_long_names_are_cut_and_those_that_become_equal_are_summed() -> None:
    long, other = "x" * 20 + "a", "x" * 20 + "b"
    report = shown(
        samples.report(
            tasks=[samples.task(long), samples.task(other)],
            objects=[ObjectCount(long, 1, 1), ObjectCount(other, 2, 2)],
            lost=[LostRuns(long, "oom", 1), LostRuns(other, "oom", 1)],
            containers=[Container(long, "dict", 1, 1), Container(other, "dict", 2, 2, limit=9)],
        ),
        label_length=20,
    )
    assert [(task.name, task.runs["succeeded"]) for task in report.tasks] == [("x" * 20, 16)]
    assert report.objects == [ObjectCount("x" * 20, 3, 3)]
    assert report.lost == [LostRuns("x" * 20, "oom", 2)]
    assert report.containers == [Container("x" * 20, "dict", 3, 3, limit=9)]


def test_object_types_beyond_the_limit_are_left_out_and_counted() -> None:
    report, dropped = capped(samples.report(), Admitted(), Limits(object_types_per_worker=1))
    assert [counted.type for counted in report.objects] == ["shop.MyCacheEntry"]
    assert dropped == {"celery_worker_objects": 1}


def test_containers_beyond_the_limit_are_left_out_and_counted() -> None:
    containers = [Container(f"shop.C{number}", "list", 1, 1) for number in range(12)]
    report, dropped = capped(samples.report(containers=containers), Admitted(), Limits())
    assert report.containers == containers[:MAX_CONTAINERS]
    assert dropped == {"celery_worker_container_items": 2}


def test_exceptions_beyond_the_limit_are_summed_as_other() -> None:
    row = samples.traffic(failed={"A": 1, "B": 2, "C": 3, "D": 4})
    capped_row = cap_exceptions(row, Limits(exceptions_per_task=2))
    assert capped_row.failed == {"A": 1, "B": 2, "other": 7}


def test_exceptions_whose_names_become_equal_are_summed() -> None:
    row = samples.traffic(failed={"x" * 16 + "a": 1, "x" * 16 + "b": 2})
    (capped_row,) = shown(samples.report(traffic=[row]), label_length=16).traffic
    assert capped_row.failed == {"x" * 16: 3}


def test_reasons_that_are_not_known_are_other_ones() -> None:
    report = shown(
        samples.report(
            lost=[LostRuns("t", "magic", 1), LostRuns("t", "more magic", 2)],
            children_exited={"oom": 1, "magic": 2, "more magic": 3},
            audits_discarded={"trace": 1, "magic": 2},
        )
    )
    assert report.lost == [LostRuns("t", "other", 3)]
    assert report.children_exited == {"oom": 1, "other": 5}
    assert report.audits_discarded == {"trace": 1, "other": 2}


def test_queues_are_those_whose_whole_name_can_be_shown_each_once() -> None:
    queues = ["a", "x" * 121, "b", "a", "c"]
    assert shown(samples.report(queues=queues), queues=2).queues == ["a", "b"]


def test_of_evidence_the_largest_is_kept() -> None:
    numbers = range(MAX_SITES + 2)
    evidence = shown_evidence(
        samples.evidence(
            survivors={"few": 1, "most": 9, "many": 5},
            sites=[Site(f"shop.py:{number}", "bytes", float(number)) for number in numbers],
            holders=[Holder(f"shop.H{number}", "dict", 1, float(number)) for number in numbers],
            fills=[Fill(f"shop.H{number}", [1.0], [1.0]) for number in numbers],
        ),
        object_types_per_worker=2,
    )
    assert list(evidence.survivors.items()) == [("most", 9), ("many", 5)]
    assert [site.amount for site in evidence.sites] == [*map(float, numbers)][:1:-1]
    assert [holder.growth for holder in evidence.holders] == [*map(float, numbers)][:1:-1]
    assert [fill.path for fill in evidence.fills] == [f"shop.H{number}" for number in range(10)]


def test_long_names_of_evidence_are_cut_and_those_that_become_equal_are_summed() -> None:
    long, other = "x" * 16 + "a", "x" * 16 + "b"
    evidence = shown_evidence(
        samples.evidence(
            survivors={long: 1, other: 2},
            sites=[Site(long, "bytes", 1.0), Site(other, "bytes", 2.0), Site(other, "fds", 4.0)],
            holders=[Holder(long, "dict", 7, 1.0), Holder(other, "dict", 5, 2.0, limit=9)],
            fills=[Fill(long, [1.0], [1.0])],
            paths=[long, other],
        ),
        label_length=16,
    )
    assert evidence.survivors == {"x" * 16: 3}
    assert evidence.sites == [Site("x" * 16, "fds", 4.0), Site("x" * 16, "bytes", 3.0)]
    assert evidence.holders == [Holder("x" * 16, "dict", 7, 3.0, limit=9)]
    assert evidence.fills == [Fill("x" * 16, [1.0], [1.0])]
    assert evidence.paths == ["x" * 16]
