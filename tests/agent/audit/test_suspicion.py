"""Which task types are worth a deep audit."""

from __future__ import annotations

import pytest

from celery_memory_exporter.agent.audit.suspicion import (
    FIRST_AGE,
    Suspicion,
    steady_sums,
    suspicion_of,
)
from celery_memory_exporter.agent.stats.growth import FREE_LIST_BYTES, TaskProfile
from celery_memory_exporter.common.evidence import AGES
from celery_memory_exporter.common.left_behind import SUSPICION
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES


def audited(
    blocks: list[float], native: list[float] | None = None, first_run: int = AGES[FIRST_AGE]
) -> TaskProfile:
    """The runs from this one on, each audited."""
    grown = TaskProfile()
    grown.runs = first_run
    for at, each in enumerate(blocks):
        grown.add_audit(grown.begin(), each, native[at] if native else 0.0)
    return grown


def suspected(grown: TaskProfile) -> Suspicion:
    return suspicion_of(grown.row)


def test_what_each_run_leaves_behind_is_suspect() -> None:
    suspicion = suspected(audited([20.0] * 10))
    assert suspicion
    assert suspicion == Suspicion(20.0 * MEAN_BLOCK_BYTES, kernel=False)


def test_nothing_left_is_nothing() -> None:
    assert not suspected(audited([0.0] * 10))
    assert not Suspicion()


def test_what_the_first_runs_leave_behind_is_start_up() -> None:
    assert not suspected(audited([20.0] * AGES[FIRST_AGE], first_run=0))


def test_a_few_audits_say_nothing() -> None:
    assert not suspected(audited([20.0] * (SUSPICION.audits - 1)))
    assert suspected(audited([20.0] * SUSPICION.audits))


def test_a_few_audits_say_nothing_of_the_kernels_figures_and_of_the_runs_between() -> None:
    for audits, suspect in ((SUSPICION.audits - 1, False), (SUSPICION.audits, True)):
        opening = audited([0.0] * audits)
        opening.add_kernel(FIRST_AGE, 10, 0, 0, 0)
        assert bool(suspected(opening)) is suspect
        between = audited([0.0] * audits)
        between.add_sample(between.begin(), 0.0, 4.0 * FREE_LIST_BYTES, only_large=True)
        assert bool(suspected(between)) is suspect


def test_two_audits_of_four_that_leave_the_same_may_be_chance_and_five_of_eight_are_not() -> None:
    assert not suspected(audited([20.0, 20.0, 0.0, 0.0]))
    assert suspected(audited([20.0] * 5 + [0.0] * 3))


def test_the_sums_are_those_of_the_profile_that_is_reported() -> None:
    grown = audited([20.0, 30.0], [100.0, 7.0])
    grown.add_kernel(FIRST_AGE, 1, 2, 3, 4096)
    grown.add_garbage(FIRST_AGE, 5.0, 6.0)
    grown.add_sample(grown.begin(), 0.0, 2.0 * FREE_LIST_BYTES, only_large=True)
    profile = grown.row.to_profile()
    for column, total in steady_sums(grown.row)._asdict().items():
        assert total == sum(getattr(profile, column)[FIRST_AGE:]), column


def test_one_step_is_no_leak() -> None:
    assert not suspected(audited([1_000.0] + [0.0] * 19))


def test_what_comes_and_goes_is_no_leak() -> None:
    assert not suspected(audited([50.0, -50.0] * 10))


def test_some_bytes_of_the_c_heap_in_some_runs_are_its_caches() -> None:
    assert not suspected(audited([0.0] * 20, [500.0, 0.0, 0.0, 300.0] * 5))


def test_native_memory_in_each_run_is_suspect() -> None:
    assert suspected(audited([0.0] * 10, [1_000.0] * 10)).bytes == 1_000


@pytest.mark.parametrize("figures", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 4096)])
def test_descriptors_threads_processes_and_shared_memory_are_suspect(
    figures: tuple[int, int, int, int],
) -> None:
    grown = audited([0.0] * 10)
    for _ in range(10):
        grown.add_kernel(FIRST_AGE, *figures)
    assert suspected(grown) == Suspicion(0.0, kernel=True)


def test_a_large_leak_in_few_runs_is_told_by_the_runs_between_audits() -> None:
    grown = audited([0.0] * 20)
    for number in range(200):
        grown.add_sample(
            grown.begin(), 0.0, 2.0 * FREE_LIST_BYTES if number % 50 == 0 else 0.0, only_large=True
        )
    suspicion = suspected(grown)
    assert suspicion.bytes == pytest.approx(4 * 2 * FREE_LIST_BYTES / 220)


def test_garbage_that_audits_find_speaks_against_the_runs_between() -> None:
    grown = audited([0.0] * 20)
    for _ in range(20):
        grown.add_garbage(FIRST_AGE, 0.0, 2.0 * FREE_LIST_BYTES)
    for _ in range(200):
        grown.add_sample(grown.begin(), 0.0, 2.0 * FREE_LIST_BYTES, only_large=True)
    assert not suspected(grown)
