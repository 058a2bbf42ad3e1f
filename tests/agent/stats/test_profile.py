"""A task type's profile by age, as rows of it add up and are told."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.stats import profile
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.profile import (
    WARM_AGE,
    Column,
    Failed,
    ProfileRow,
    Retained,
)
from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Profile
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES
from tests.agent.profiles import profile_row, set_figures

PLACES = st.tuples(st.sampled_from(range(len(AGES))), st.sampled_from(list(Column)))


# --- columns ------------------------------------------------------------------------------------


def test_columns_are_the_fields_of_the_report_in_their_order() -> None:
    fields = [field.name for field in dataclasses.fields(Profile)]
    assert [column.name.lower() for column in sorted(Column)] == fields
    assert [*sorted(Column)] == [*range(profile.WIDTH)]


@given(st.dictionaries(PLACES, st.integers(1, 2**40)))
def test_each_figure_of_each_age_has_a_place_of_its_own(
    figures: dict[tuple[int, Column], int],
) -> None:
    row = ProfileRow()
    for (age, column), figure in figures.items():
        set_figures(row, age, **{column.name: figure})
    assert {place: row[place] for place in figures} == figures
    assert sum(row.figures) == sum(figures.values())
    assert row.failed_audits == row.failed_bytes == 0


def test_the_ages_from_one_on_are_summed_by_column() -> None:
    row = profile_row(3, runs=5, blocks=7)
    set_figures(row, 4, runs=1, blocks=2)
    set_figures(row, len(AGES) - 1, runs=10)
    sums = row.sums(4)
    assert (sums[Column.RUNS], sums[Column.BLOCKS]) == (11, 2)
    assert row.sums(0)[Column.RUNS] == sum(row.ages(Column.RUNS)) == 16


def test_failed_runs_belong_to_no_age() -> None:
    row = ProfileRow()
    row.figures[Failed.AUDITS], row.figures[Failed.BLOCKS], row.figures[Failed.NATIVE] = 2, 3, 50
    assert (row.failed_audits, row.failed_bytes) == (2, 3 * MEAN_BLOCK_BYTES + 50)
    assert not any(row.sums(0))
    assert row.to_profile().runs == []


def test_warm_is_the_age_at_which_start_up_is_over() -> None:
    assert AGES[WARM_AGE] == WARM_RUNS


# --- what is retained ---------------------------------------------------------------------------


def test_by_audits_all_runs_retain_what_the_audited_ones_did_on_average() -> None:
    row = profile_row(1, runs=10, audited=2, blocks=30, native=400, sampled=1, sampled_bytes=1e6)
    assert row.retained() == (150, 2_000, 10)


def test_an_age_without_an_audit_is_taken_for_the_one_before() -> None:
    row = profile_row(1, runs=4, audited=4, blocks=40)
    set_figures(row, 2, runs=5)
    set_figures(row, 3, runs=10, audited=1, blocks=1)
    assert row.retained() == (40 + 50 + 10, 0, 19)


def test_runs_before_the_first_audit_retain_nothing_that_is_known() -> None:
    row = profile_row(1, runs=4)
    set_figures(row, 2, runs=5, audited=1, blocks=10)
    assert row.retained() == (50, 0, 9)


def test_without_audits_what_was_read_counts_as_blocks() -> None:
    row = profile_row(1, runs=1, sampled=1, sampled_bytes=19 * MEAN_BLOCK_BYTES)
    assert row.retained() == (19, 0, 1)


def test_the_first_run_of_a_process_is_not_retained() -> None:
    assert profile_row(0, runs=1, audited=1, blocks=1_000, native=1_000).retained() == (0, 0, 0)


def test_runs_that_nobody_measured_are_not_told() -> None:
    assert profile_row(1, runs=100).retained() == (0, 0, 0)


def test_what_processes_retain_adds_up() -> None:
    rows = [
        profile_row(1, runs=4, audited=audits, blocks=10 * audits, native=audits)
        for audits in (1, 2)
    ]
    assert Retained.of_all(row.retained() for row in rows) == (80, 8, 8)
    assert Retained.of_all([]) == (0, 0, 0)


# --- for the report -----------------------------------------------------------------------------


def test_a_profile_ends_with_the_last_age_that_was_reached() -> None:
    grown = TaskProfile()
    age = [grown.begin() for _ in range(7)][-1]
    grown.add_audit(age, 2, 7)
    told = grown.row.to_profile()
    assert told.runs == [1, 4, 2]
    assert (told.blocks, told.native) == ([0, 0, 2], [0, 0, 7])
    assert {len(getattr(told, each.name)) for each in dataclasses.fields(Profile)} == {3}


def test_each_figure_is_told_under_its_own_name() -> None:
    row = profile_row(0, **{column.name: int(column) + 1 for column in Column})
    told = dataclasses.asdict(row.to_profile())
    assert told == {column.name.lower(): [int(column) + 1] for column in Column}


def test_an_age_that_was_passed_over_is_zero() -> None:
    assert profile_row(2, runs=3).to_profile().runs == [0, 0, 3]


def test_the_profile_of_a_type_that_never_ran_is_empty() -> None:
    assert ProfileRow().to_profile().runs == []


def test_figures_are_told_to_a_tenth() -> None:
    assert profile_row(0, runs=1 / 3).to_profile().runs == [0.3]
