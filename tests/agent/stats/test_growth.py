"""What the runs of one task type leave behind in one process, booked at their ages."""

from __future__ import annotations

import pytest

from celery_memory_exporter.agent.stats.growth import (
    DROP_BLOCKS,
    FREE_LIST_BYTES,
    LARGE_NATIVE_BYTES,
    MAX_TYPES,
    WARM_RUNS_AT_LEAST,
    WARM_SECONDS,
    TaskProfile,
    is_large,
)
from celery_memory_exporter.agent.stats.profile import WARM_AGE, Column
from celery_memory_exporter.common.evidence import AGES, WARM_RUNS
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES


def begin(profile: TaskProfile, runs: int) -> None:
    for _ in range(runs):
        profile.begin()


# --- ages ---------------------------------------------------------------------------------------


def test_runs_are_counted_by_how_many_came_before() -> None:
    profile = TaskProfile()
    begin(profile, 35)
    assert profile.row.ages(Column.RUNS)[:7] == [1, 4, 5, 10, 10, 5, 0]
    assert profile.runs == 35


def test_the_answer_is_the_age_of_the_run() -> None:
    profile = TaskProfile()
    assert [profile.begin() for _ in range(11)] == [0] + [1] * 4 + [2] * 5 + [3]


def test_the_last_age_has_no_end() -> None:
    profile = TaskProfile()
    profile.runs = 10**9
    assert profile.begin() == len(AGES) - 1


def test_a_type_that_runs_seldom_is_past_start_up_after_a_minute() -> None:
    profile = TaskProfile()
    begin(profile, WARM_RUNS_AT_LEAST)
    profile.since -= WARM_SECONDS
    assert profile.begin() == WARM_AGE
    assert not profile.starting
    begin(profile, 14)
    assert profile.begin() == AGES.index(45), "and goes on from there"


def test_not_before_it_ran_some_times() -> None:
    profile = TaskProfile()
    profile.since -= WARM_SECONDS
    begin(profile, WARM_RUNS_AT_LEAST)
    assert sum(profile.row.ages(Column.RUNS)[:WARM_AGE]) == WARM_RUNS_AT_LEAST
    assert profile.starting


def test_time_changes_nothing_for_a_type_that_ran_often() -> None:
    profile = TaskProfile()
    begin(profile, 100)
    profile.since -= WARM_SECONDS
    assert profile.begin() == AGES.index(90)


def test_start_up_ends_with_so_many_runs() -> None:
    profile = TaskProfile()
    begin(profile, WARM_RUNS - 1)
    assert profile.starting
    profile.begin()
    assert not profile.starting


# --- audited runs -------------------------------------------------------------------------------


def test_what_an_audit_finds_much_of_is_told_apart() -> None:
    profile = TaskProfile()
    age = profile.begin()
    profile.add_audit(age, 10, 100)
    profile.add_audit(age, 0, FREE_LIST_BYTES)
    row, size = profile.row, 10 * MEAN_BLOCK_BYTES + 100
    assert (row[age, Column.AUDITED], row[age, Column.BLOCKS]) == (2, 10)
    assert row[age, Column.NATIVE] == 100 + FREE_LIST_BYTES
    assert row[age, Column.SQUARES] == size**2 + FREE_LIST_BYTES**2
    assert (row[age, Column.LARGE], row[age, Column.LARGE_SQUARES]) == (
        FREE_LIST_BYTES,
        FREE_LIST_BYTES**2,
    )
    assert profile.audits == 2


def test_what_the_kernel_counts_adds_up() -> None:
    profile = TaskProfile()
    for _ in range(2):
        profile.add_kernel(3, 1, 2, 3, 4096)
    columns = (Column.FDS, Column.THREADS, Column.CHILDREN, Column.SHARED, Column.SHARED_RISES)
    assert [profile.row[3, column] for column in columns] == [2, 4, 6, 8192, 2]


def test_shared_memory_that_falls_is_no_rise() -> None:
    profile = TaskProfile()
    profile.add_kernel(0, 0, 0, 0, -4096)
    profile.add_kernel(0, 0, 0, 0, 0)
    assert (profile.row[0, Column.SHARED], profile.row[0, Column.SHARED_RISES]) == (-4096, 0)


def test_garbage_is_booked_at_its_age() -> None:
    profile = TaskProfile()
    profile.add_garbage(2, 5, 6)
    assert profile.row[2, Column.GARBAGE_BLOCKS] == 5
    assert profile.row[2, Column.GARBAGE_NATIVE] == 6


def test_failed_runs_have_figures_of_their_own() -> None:
    profile = TaskProfile()
    profile.begin()
    profile.add_failed(3, 50)
    assert (profile.row.failed_audits, profile.row.failed_bytes) == (1, 3 * MEAN_BLOCK_BYTES + 50)
    assert sum(profile.row.sums(0)) == 1, "the run itself"


def test_the_cost_of_an_audit_is_a_mean() -> None:
    profile = TaskProfile()
    assert profile.cpu_per_audit == 0
    profile.cpu_seconds = 3.0
    profile.add_audit(0, 0, 0)
    profile.add_audit(0, 0, 0)
    assert profile.cpu_per_audit == 1.5


# --- runs that were read without an audit -------------------------------------------------------


def sampled(profile: TaskProfile, age: int) -> tuple[float, float, float]:
    row = profile.row
    return (
        row[age, Column.SAMPLED],
        row[age, Column.SAMPLED_BYTES],
        row[age, Column.SAMPLED_SQUARES],
    )


def test_a_sample_is_told_in_bytes() -> None:
    profile = TaskProfile()
    age = profile.begin()
    profile.add_sample(age, 2, 20, only_large=False)
    size = 2 * MEAN_BLOCK_BYTES + 20
    assert sampled(profile, age) == (1, size, size**2)


def test_beside_audits_only_much_counts() -> None:
    profile = TaskProfile()
    age = profile.begin()
    profile.add_sample(age, 100, 0, only_large=True)
    assert sampled(profile, age) == (1, 0, 0)
    profile.add_sample(age, 0, FREE_LIST_BYTES, only_large=True)
    assert sampled(profile, age) == (2, FREE_LIST_BYTES, FREE_LIST_BYTES**2)


@pytest.mark.parametrize(
    ("blocks", "native", "expected"),
    [
        (FREE_LIST_BYTES / MEAN_BLOCK_BYTES, 0, True),
        (FREE_LIST_BYTES / MEAN_BLOCK_BYTES - 1, 0, False),
        (0, LARGE_NATIVE_BYTES, True),
        (0, -LARGE_NATIVE_BYTES, True),
        (0, LARGE_NATIVE_BYTES - 1, False),
        (-DROP_BLOCKS, 0, True),
        (1 - DROP_BLOCKS, 0, False),
    ],
)
def test_what_is_more_than_free_lists_and_caches_explain(
    blocks: float, native: float, expected: bool
) -> None:
    assert is_large(blocks * MEAN_BLOCK_BYTES + native, blocks, native) is expected


# --- survivors ----------------------------------------------------------------------------------


def test_survivors_add_up_and_endless_new_types_are_bounded() -> None:
    profile = TaskProfile()
    for number in range(2 * MAX_TYPES):
        profile.add_survivors({"first": 2, f"t{number}": 1})
    assert profile.survivors["first"] == 4 * MAX_TYPES
    assert len(profile.survivors) == MAX_TYPES
