"""The profile by age of one task type in one process."""

from __future__ import annotations

import dataclasses
from array import array

from celery_memory_exporter.agent.stats import growth
from celery_memory_exporter.agent.stats.growth import (
    FREE_LIST_BYTES,
    MAX_TYPES,
    WARM_RUNS_AT_LEAST,
    WARM_SECONDS,
    Growth,
)
from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Profile
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES


def ages_of(row: array[float]) -> list[float]:
    return list(row[growth.RUNS : growth.FAILED : growth.WIDTH])


def begin(grown: Growth, runs: int) -> None:
    for _ in range(runs):
        grown.begin()


def past_start_up(grown: Growth) -> int:
    begin(grown, 1)
    return grown.begin()


def test_runs_are_counted_by_how_many_came_before() -> None:
    grown = Growth()
    begin(grown, 35)
    assert ages_of(grown.row)[:7] == [1, 4, 5, 10, 10, 5, 0]
    assert grown.runs == 35


def test_the_answer_is_where_the_age_starts() -> None:
    grown = Growth()
    starts = [grown.begin() for _ in range(11)]
    assert starts == [0] + [growth.WIDTH] * 4 + [2 * growth.WIDTH] * 5 + [3 * growth.WIDTH]


def test_the_last_age_has_no_end() -> None:
    grown = Growth()
    grown.runs = 10**9
    assert grown.begin() == (len(AGES) - 1) * growth.WIDTH


def test_a_type_that_runs_seldom_is_past_start_up_after_a_minute() -> None:
    grown = Growth()
    begin(grown, WARM_RUNS_AT_LEAST)
    grown._first -= WARM_SECONDS
    assert grown.begin() == AGES.index(WARM_RUNS) * growth.WIDTH
    begin(grown, 14)
    assert grown.begin() == AGES.index(45) * growth.WIDTH, "and goes on from there"


def test_not_before_it_ran_some_times() -> None:
    grown = Growth()
    grown._first -= WARM_SECONDS
    begin(grown, WARM_RUNS_AT_LEAST)
    assert sum(ages_of(grown.row)[: AGES.index(WARM_RUNS)]) == WARM_RUNS_AT_LEAST


def test_time_changes_nothing_for_a_type_that_ran_often() -> None:
    grown = Growth()
    begin(grown, 100)
    grown._first -= WARM_SECONDS
    assert grown.begin() == AGES.index(90) * growth.WIDTH


def test_what_much_an_audit_finds_is_told_apart() -> None:
    grown = Growth()
    start = grown.begin()
    grown.add_audit(start, 10, 100)
    grown.add_audit(start, 0, FREE_LIST_BYTES)
    size = 10 * MEAN_BLOCK_BYTES + 100
    assert (grown.row[growth.AUDITED], grown.row[growth.BLOCKS], grown.row[growth.NATIVE]) == (
        2,
        10,
        100 + FREE_LIST_BYTES,
    )
    assert grown.row[growth.SQUARES] == size**2 + FREE_LIST_BYTES**2
    assert (grown.row[growth.LARGE], grown.row[growth.LARGE_SQUARES]) == (
        FREE_LIST_BYTES,
        FREE_LIST_BYTES**2,
    )
    assert grown.audits == 2


def test_a_sample_is_told_in_bytes() -> None:
    grown = Growth()
    grown.add_sample(grown.begin(), 2, 20, only_large=False)
    size = 2 * MEAN_BLOCK_BYTES + 20
    assert [
        grown.row[at] for at in (growth.SAMPLED, growth.SAMPLED_BYTES, growth.SAMPLED_SQUARES)
    ] == [1, size, size**2]


def test_beside_audits_only_much_counts() -> None:
    grown = Growth()
    start = grown.begin()
    grown.add_sample(start, 100, 0, only_large=True)
    assert (grown.row[growth.SAMPLED], grown.row[growth.SAMPLED_BYTES]) == (1, 0)
    grown.add_sample(start, 0, FREE_LIST_BYTES, only_large=True)
    assert (grown.row[growth.SAMPLED], grown.row[growth.SAMPLED_BYTES]) == (2, FREE_LIST_BYTES)


def test_survivors_add_up_and_endless_new_types_are_bounded() -> None:
    grown = Growth()
    for number in range(2 * MAX_TYPES):
        grown.add_survivors({"first": 2, f"t{number}": 1})
    assert grown.survivors["first"] == 4 * MAX_TYPES
    assert len(grown.survivors) == MAX_TYPES


def test_by_audits_all_runs_retain_what_the_audited_ones_did_on_average() -> None:
    grown = Growth()
    start = past_start_up(grown)
    begin(grown, 9)
    for blocks, native in ((10, 100), (20, 300)):
        grown.add_audit(start, blocks, native)
    grown.add_sample(start, 5_000, 0, only_large=False)
    assert growth.retained([grown.row]) == (150, 2_000, 10)


def test_without_audits_what_was_read_counts_as_blocks() -> None:
    grown = Growth()
    start = past_start_up(grown)
    grown.add_sample(start, 10, 9 * MEAN_BLOCK_BYTES, only_large=False)
    assert growth.retained([grown.row]) == (19, 0, 1)


def test_the_first_run_of_a_process_is_not_retained() -> None:
    grown = Growth()
    grown.add_audit(grown.begin(), 1_000, 1_000)
    assert growth.retained([grown.row]) == (0, 0, 0)


def test_what_processes_retain_adds_up() -> None:
    rows = []
    for audits in (1, 2):
        grown = Growth()
        start = past_start_up(grown)
        begin(grown, 3)
        for _ in range(audits):
            grown.add_audit(start, 10, 1)
        rows.append(grown.row)
    assert growth.retained(rows) == (80, 8, 8)
    assert growth.retained([]) == (0, 0, 0)


def test_failed_runs_have_figures_of_their_own() -> None:
    grown = Growth()
    grown.begin()
    grown.add_failed(3, 50)
    assert list(grown.row[growth.FAILED :]) == [1, 3, 50]


def test_a_profile_ends_with_the_last_age_that_was_reached() -> None:
    grown = Growth()
    start = 0
    for _ in range(7):
        start = grown.begin()
    grown.add_audit(start, 2, 7)
    grown.add_kernel(start, 1, 2, 3, 4096)
    grown.add_garbage(start, 5, 6)
    profile = growth.to_profile(grown.row)
    assert profile.runs == [1, 4, 2]
    assert profile.blocks == [0, 0, 2]
    assert profile.native == [0, 0, 7]
    assert [profile.fds[2], profile.threads[2], profile.children[2], profile.shared[2]] == [
        1,
        2,
        3,
        4096,
    ]
    assert [profile.garbage_blocks[2], profile.garbage_native[2]] == [5, 6]
    assert {len(getattr(profile, each.name)) for each in dataclasses.fields(Profile)} == {3}


def test_the_profile_of_a_type_that_never_ran_is_empty() -> None:
    assert growth.to_profile(growth.new_row()).runs == []


def test_columns_are_those_of_the_report() -> None:
    assert tuple(each.name for each in dataclasses.fields(Profile)) == growth.COLUMNS
