"""Resident memory that rises with runs, and that no heap which can be read explains."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from celery_memory_exporter.agent.stats.tally import DELTA_BYTES, TaskTotals
from celery_memory_exporter.common.report import TaskReport
from celery_memory_exporter.diagnosis.classes import classes_of
from celery_memory_exporter.diagnosis.rules import Case
from celery_memory_exporter.diagnosis.unexplained import resident_per_run
from celery_memory_exporter.diagnosis.verdict import Cleared, Suspect
from celery_memory_exporter.fleet.snapshot import WorkerView
from tests import samples
from tests.diagnosis.evidence import (
    MIB,
    Series,
    case_of,
    diagnosis_of,
    evidence_of,
    history,
    leak,
    nothing,
    task,
    view,
)

KIB = 1024.0


def flat(_: int) -> float:
    return 40.0 * MIB


def rising(n: int) -> float:
    return (60.0 + 4 * n) * MIB


def adds(*sizes: float, name: str = "shop.leak", **changes: Any) -> TaskReport:
    """A task type whose runs each add so many bytes of resident memory."""
    totals = TaskTotals()
    for size in sizes:
        totals.add_delta(size)
    return task(
        changes.pop("evidence", evidence_of(nothing)),
        name,
        growth_bytes=totals.grown_bytes,
        release_bytes=totals.released_bytes,
        delta=totals.delta,
        runs={"succeeded": len(sizes)},
        **changes,
    )


def worker(
    *tasks: TaskReport,
    live: Series = flat,
    anon: Series = rising,
    free: float = 0.0,
    pool: str = "prefork",
) -> WorkerView:
    """With two children whose memory has such a past."""
    past = history(live, anon, free=free)
    children = [samples.process(each, 101, history=past) for each in "01"]
    seen = view(
        None, tasks=list(tasks), processes=[samples.process("main", 100), *children], pool=pool
    )
    assert seen.report is not None
    bounds = dataclasses.replace(seen.report.bounds, delta_bytes=DELTA_BYTES)
    return dataclasses.replace(seen, report=dataclasses.replace(seen.report, bounds=bounds))


def case(seen: WorkerView) -> Case:
    assert seen.report is not None
    evidence = seen.report.tasks[0].evidence
    assert evidence is not None
    return dataclasses.replace(case_of(evidence), worker=seen, task=seen.report.tasks[0])


STEADY = (100 * KIB,) * 1_200


def test_runs_that_add_to_resident_memory_beyond_the_heaps_are_named() -> None:
    fine = adds(*[0.0] * 1_200, name="shop.fine")
    diagnosis = diagnosis_of(worker(adds(*STEADY), fine))
    (found,) = diagnosis.suspects
    assert (found.task, found.growth_classes) == ("shop.leak", ("resident",))
    assert found.retained_bytes_per_run == 100 * KIB
    assert (found.growing_processes, found.processes) == (2, 2)
    assert "no heap that can be read explains it" in found.advice
    (cleared,) = diagnosis.cleared
    assert cleared.task == "shop.fine"
    assert cleared.settled


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("live memory rises as much", {"live": rising}),
        ("the C heap keeps it free", {"free": 4.0 * MIB}),
        ("resident memory has stopped rising", {"anon": lambda n: (60 + 4 * min(n, 5)) * MIB}),
        ("it goes up and down", {"anon": lambda n: (60 + 30 * (n % 3)) * MIB}),
        ("runs overlap", {"pool": "threads"}),
    ],
)
def test_nobody_is_named_where(what: str, changes: dict[str, Any]) -> None:
    assert resident_per_run(case(worker(adds(*STEADY)))) == 100 * KIB
    assert resident_per_run(case(worker(adds(*STEADY), **changes))) == 0.0, what


@pytest.mark.parametrize(
    "sizes",
    [
        (120 * MIB, *[0.0] * 1_199),  # an import
        (*[10.0 * MIB] * 12, *[0.0] * 1_188),  # pools of connections
        (100 * KIB, -100 * KIB) * 600,
        (1.0 * KIB,) * 1_200,  # next to nothing of what the processes grow by
        (10 * MIB,) * 1_200,  # which is given back before the next one begins
    ],
)
def test_a_few_large_runs_and_what_is_given_back_are_no_leak(sizes: tuple[float, ...]) -> None:
    assert resident_per_run(case(worker(adds(*sizes)))) == 0.0


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ((10 * KIB,) * 1_200, True),
        ((200 * KIB,) * 1_200, False),
        ((-300 * KIB,) * 1_200, False),  # the pages of whoever ran before
    ],
)
def test_where_others_add_or_give_back_as_much_nobody_is_named(
    other: tuple[float, ...], named: bool
) -> None:
    beside = adds(*other, name="shop.other")
    diagnosis = diagnosis_of(worker(adds(*STEADY), beside))
    assert [each.task for each in diagnosis.suspects] == ["shop.leak"] * named
    if not named:
        reasons = {each.task: each.reason for each in diagnosis.cleared}
        assert reasons["shop.leak"].startswith("resident memory rises, and no heap")


def test_objects_that_hold_it_are_told_with_all_of_it() -> None:
    """Tables of Arrow: some blocks of Python's, and a pool of its own."""
    held = adds(*STEADY, evidence=evidence_of(leak))
    (found,) = diagnosis_of(worker(held)).suspects
    assert found.growth_classes == ("python",)
    assert found.retained_bytes_per_run == 100 * KIB


@pytest.mark.parametrize("anon", [lambda n: (60 + n / 100) * MIB, rising])
def test_where_native_memory_cannot_be_read_audits_clear_nobody_whose_memory_rises(
    anon: Series,
) -> None:
    """Another malloc than glibc's: what C code keeps is in no audit."""
    seen = adds(*[0.0] * 400, retained_native_bytes=None)
    (unknown,) = diagnosis_of(worker(seen, anon=anon)).cleared
    assert not unknown.settled
    assert unknown.reason.startswith("native memory cannot be read here")
    (known,) = diagnosis_of(worker(seen, anon=flat)).cleared
    assert known.settled
    (young,) = diagnosis_of(view(None, tasks=[seen])).cleared
    assert not young.settled


def test_under_another_malloc_a_leak_of_the_c_heap_is_named_by_resident_memory() -> None:
    found = diagnosis_of(worker(adds(*STEADY, retained_native_bytes=None))).suspects
    assert [each.growth_class for each in found] == ["resident"]
    assert all(isinstance(each, Suspect) and not isinstance(each, Cleared) for each in found)
    assert classes_of(case(worker(adds(*STEADY)))) == ("resident",)
