"""What grows: Python's memory, the C heap, what the kernel counts, shared memory, garbage."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from celery_memory_exporter.common.evidence import Estimate, Evidence, Holder, Site
from celery_memory_exporter.diagnosis.judge import judge
from celery_memory_exporter.diagnosis.verdict import Cleared, Suspect
from tests import samples
from tests.diagnosis.evidence import (
    MIB,
    SURE,
    Process,
    diagnosis_of,
    evidence_of,
    leak,
    nothing,
    task,
    told_by,
    verdict_on,
    view,
)


def native_evidence(**changes: Any) -> Evidence:
    """Of 50,000 bytes of the C heap a run, and no Python object."""
    seen = Process()
    for _ in range(200):
        seen.audit(native=50_000.0)
    return dataclasses.replace(told_by(seen), **changes)


def class_of(verdict: Suspect | Cleared) -> str:
    assert isinstance(verdict, Suspect)
    return verdict.growth_class


# --- Python or the C heap -----------------------------------------------------------------------


def test_native_bytes_without_blocks_or_survivors_are_native() -> None:
    assert class_of(verdict_on(native_evidence())) == "native"


@pytest.mark.parametrize(
    "changes",
    [
        {"holders": [Holder("shop.texts", "dict", 400, 400.0)]},
        {"sites": [Site("shop.py:3", "bytes", 200_000.0)], "deep_audits": 4, "traced_audits": 4},
        {"survivors": {"bytearray": 200}},
    ],
)
def test_native_bytes_of_python_objects_are_pythons(changes: dict[str, Any]) -> None:
    assert class_of(verdict_on(native_evidence(**changes))) == "python"


def test_a_few_objects_that_hold_much_of_the_c_heap_are_native() -> None:
    """The watch saw lines take more from the C heap than Python allocated."""
    sites = [Site("shop.py:3", "native", 200_000.0), Site("shop.py:3", "bytes", 400.0)]
    few = native_evidence(
        sites=sites, survivors={"shop.Handle": 200}, traced_audits=4, watched_audits=4
    )
    assert class_of(verdict_on(few)) == "native"


# --- what the kernel counts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figure", "growth_class"),
    [("fds", "descriptors"), ("threads", "threads"), ("children", "processes")],
)
def test_what_the_kernel_counts(figure: str, growth_class: str) -> None:
    verdict = verdict_on(evidence_of(nothing, **{figure: 1.0}))
    assert isinstance(verdict, Suspect)
    assert (verdict.growth_class, verdict.retained_count_per_run) == (growth_class, 1.0)


@pytest.mark.parametrize(("figure", "there"), [("threads", "threads"), ("fds", "open_fds")])
def test_what_is_not_there_in_the_processes_was_not_left_behind(figure: str, there: str) -> None:
    """A thread of a timer is there when its run ends, and ends a little later."""
    evidence = evidence_of(nothing, **{figure: 1.0})

    def verdict_with(count: int | None) -> Suspect | Cleared | None:
        counts = {"main": 9_000, "0": count, "1": count}
        processes = [
            samples.process(name, pid, **{there: number})
            for pid, (name, number) in enumerate(counts.items())
        ]
        told = view(evidence, processes=processes, task={"retained_runs": 400})
        assert told.report is not None
        return judge(told, told.report.tasks[0])

    assert isinstance(verdict_with(None), Suspect), "nobody may look"
    assert isinstance(verdict_with(150), Suspect)
    assert isinstance(verdict_with(20), Cleared)


def test_the_class_that_tells_most_comes_first_and_the_others_are_named() -> None:
    verdict = verdict_on(evidence_of(leak, fds=1.0))
    assert isinstance(verdict, Suspect)
    assert verdict.growth_classes == ("descriptors", "python")


# --- shared memory ------------------------------------------------------------------------------

TMPFS = Estimate(5000.0, 200.0, 5000.0, 400.0, 400, 40)


@pytest.mark.parametrize(
    ("estimate", "accused"),
    [
        (TMPFS, True),
        (Estimate(5000.0, 2000.0, 5000.0, 4000.0, 400, 40), False),
        (Estimate(5000.0, 200.0, 10.0, 300.0, 400, 40), False),
        (Estimate(5000.0, 200.0, 5000.0, 400.0, 40, 40), False),
        (Estimate(5000.0, None, 5000.0, None, 400, 40), False),
    ],
)
def test_files_in_memory_are_told_by_least_squares(estimate: Estimate, accused: bool) -> None:
    verdict = verdict_on(dataclasses.replace(evidence_of(nothing, shared=5000.0), tmpfs=estimate))
    assert isinstance(verdict, Suspect) is accused
    assert not accused or class_of(verdict) == "shared"


def test_what_other_programs_write_to_tmpfs_is_no_task_types() -> None:
    other = dataclasses.replace(evidence_of(nothing), tmpfs=TMPFS)
    assert isinstance(verdict_on(other), Cleared)


@pytest.mark.parametrize(("mapped", "accused"), [(0, False), (MIB, True), (100 * MIB, False)])
def test_a_shared_map_is_told_by_audits_where_the_processes_have_as_much(
    mapped: int, accused: bool
) -> None:
    processes = [samples.process("main", 100), samples.process("0", 101, shmem_bytes=mapped)]
    verdict = verdict_on(evidence_of(nothing, shared=5000.0), processes=processes)
    assert isinstance(verdict, Suspect) is accused


@pytest.mark.parametrize(("of_the_other", "accused"), [(0.0, True), (5000.0, False)])
def test_files_in_memory_are_told_by_audits_where_they_rise_in_no_other_types_runs(
    of_the_other: float, accused: bool
) -> None:
    own, other = (evidence_of(nothing, shared=size) for size in (5000.0, of_the_other))
    tasks = [task(own, "shop.leak"), task(other, "shop.other")]
    suspects = diagnosis_of(view(None, tasks=tasks)).suspects
    assert [each.task for each in suspects] == ["shop.leak"] * accused


# --- where runs overlap -------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet"])
def test_where_runs_overlap_least_squares_decide(pool: str) -> None:
    evidence = evidence_of(nothing, runs=5, processes=1, audit_every=1000)
    leaking = dataclasses.replace(evidence, overlapping=SURE, collections=3)
    innocent = dataclasses.replace(
        evidence, overlapping=Estimate(30.0, 50.0, 20.0, 90.0, 400, 40), collections=3
    )
    assert isinstance(verdict_on(leaking, pool=pool), Suspect)
    assert isinstance(verdict_on(innocent, pool=pool), Cleared)
    early = verdict_on(dataclasses.replace(leaking, collections=2), pool=pool)
    assert isinstance(early, Cleared)
    assert early.growth_class == "unsettled", "it may be garbage"


def test_where_runs_overlap_a_container_that_grows_with_a_types_runs_is_proof_enough() -> None:
    blurred = Estimate(1800.0, 5000.0, 1750.0, 9000.0, 400, 40)
    evidence = dataclasses.replace(
        evidence_of(nothing, processes=1, audit_every=1000), overlapping=blurred
    )
    for share, accused in (
        (Estimate(1.0, 0.01, 1.0, 0.02, 400, 40), True),
        (Estimate(0.3, 0.01, 0.0, 0.02, 400, 40), False),
    ):
        held = [Holder("shop._my_app_cache", "dict", 400, 400.0, share=share)]
        verdict = verdict_on(dataclasses.replace(evidence, holders=held), pool="threads")
        assert isinstance(verdict, Suspect) is accused


# --- garbage ------------------------------------------------------------------------------------


def test_cycles_stay_where_the_collector_is_off() -> None:
    seen = Process()
    for _ in range(200):
        seen.audit(garbage=5900.0)
    evidence = told_by(seen)
    off = [samples.process("main", 100), samples.process("0", 101, gc_enabled=0)]
    assert class_of(verdict_on(evidence, processes=off)) == "garbage"
    before_the_fork = [samples.process("main", 100, gc_enabled=0), samples.process("0", 101)]
    assert isinstance(verdict_on(evidence, processes=before_the_fork), Cleared)
    assert class_of(verdict_on(evidence, processes=before_the_fork, pool="solo")) == "garbage"


def test_garbage_in_single_readings_is_taken_off() -> None:
    seen = Process()
    for number in range(200):
        if number % 2:
            seen.read(1.0 * MIB)
        else:
            seen.audit(garbage=1.0 * MIB)
    verdict = verdict_on(told_by(seen))
    assert isinstance(verdict, Cleared)
    assert verdict.growth_class == "garbage"


# --- without audits -----------------------------------------------------------------------------


@pytest.mark.parametrize(("floor", "accused"), [(4.0 * MIB, True), (0.0, False)])
def test_without_audits_a_process_has_to_grow_from_floor_to_floor(
    floor: float, accused: bool
) -> None:
    """Where the application froze its heap, each run is read before and after. Garbage that waits
    for the collector looks like what stays, until it is collected."""
    history = [
        [float(at), 0.0, 0.0, 50 * MIB + at / 15 * floor + (at % 4) * MIB / 8, 0.0, 5.0, 1.0]
        for at in range(16)
    ]
    seen = Process()
    for _ in range(200):
        seen.read(20_000.0, only_large=False)
    processes = [samples.process("main", 100), samples.process("0", 101, history=history)]
    verdict = verdict_on(told_by(seen, seen), processes=processes)
    assert isinstance(verdict, Suspect) is accused
