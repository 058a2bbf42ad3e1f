"""What the runs of one task type come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.agent.stats.profile import Retained
from celery_memory_exporter.agent.stats.row import sum_of
from celery_memory_exporter.agent.stats.tally import (
    DELTA_BYTES,
    MIB,
    PEAK_BYTES,
    Column,
    TaskTotals,
)
from celery_memory_exporter.common.report import OUTCOMES, TaskReport

SUCCEEDED, FAILED = OUTCOMES.index("succeeded"), OUTCOMES.index("failed")
SIZES = st.integers(-(2**40), 2**40)


def report_of(totals: TaskTotals, *, native: bool = True, peak: bool = True) -> TaskReport:
    return tally.to_report(
        ("t", "q"),
        totals,
        retained=Retained(1.5, 2.5, 3.0),
        evidence=None,
        native=native,
        peak=peak,
    )


def test_runs_and_their_seconds_are_told_by_outcome() -> None:
    totals = TaskTotals()
    totals.add_run(SUCCEEDED, 0.5)
    totals.add_run(SUCCEEDED, 0.25)
    totals.add_run(FAILED, 2.0)
    assert totals.runs == 3
    assert totals.runs_by_outcome == {"succeeded": 2, "failed": 1}
    assert totals.seconds_by_outcome == {"succeeded": 0.75, "failed": 2.0}


def test_an_outcome_is_told_though_its_runs_took_no_time() -> None:
    totals = TaskTotals()
    totals.add_run(FAILED, 0.0)
    assert totals.seconds_by_outcome == {"failed": 0.0}


@pytest.mark.parametrize("outcome", range(len(OUTCOMES)))
def test_no_outcome_counts_for_another(outcome: int) -> None:
    totals = TaskTotals()
    totals.add_run(outcome, 0.5)
    assert totals.runs_by_outcome == {OUTCOMES[outcome]: 1}
    assert totals.seconds_by_outcome == {OUTCOMES[outcome]: 0.5}


def test_a_bucket_holds_what_is_no_more_than_its_bound() -> None:
    totals = TaskTotals()
    for size in (-1.0, 0.0, 1.0, 1e12):
        totals.add_delta(size)
    zero = DELTA_BYTES.index(0.0)
    counts = totals.delta.counts
    assert (counts[zero], counts[zero + 1], counts[-1]) == (2, 1, 1)
    assert sum(counts) == 4


def test_growth_and_release_add_up_apart() -> None:
    totals = TaskTotals()
    for size in (5.0, -3.0, 0.0, 2.0):
        totals.add_delta(size)
    assert (totals.grown_bytes, totals.released_bytes, totals.delta.sum) == (7.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("after", "peak", "grown", "highest"),
    [(12, 15, 2, 5), (10, 10, 0, 0), (10, 9, 0, 0), (8, 15, -2, 5), (12, None, 2, None)],
)
def test_resident_memory_is_that_after_less_that_before(
    after: int, peak: int | None, grown: int, highest: int | None
) -> None:
    by_hand, totals = TaskTotals(), TaskTotals()
    by_hand.add_delta(grown)
    if highest is not None:
        by_hand.add_peak(highest)
    totals.add_memory(10, after, peak)
    assert totals.figures == by_hand.figures


def test_a_peak_above_every_bound_is_in_the_last_bucket() -> None:
    totals = TaskTotals()
    totals.add_peak(0)
    totals.add_peak(MIB)
    totals.add_peak(PEAK_BYTES[-1] + 1)
    assert (totals.peak.counts[0], totals.peak.counts[PEAK_BYTES.index(MIB)]) == (1, 1)
    assert totals.peak.counts[-1] == 1
    assert totals.peak.sum == MIB + PEAK_BYTES[-1] + 1


@given(st.lists(SIZES, max_size=20), st.lists(st.integers(0, 2**40), max_size=20))
def test_no_figure_runs_into_another(deltas: list[int], peaks: list[int]) -> None:
    totals = TaskTotals()
    for delta in deltas:
        totals.add_delta(delta)
    for peak in peaks:
        totals.add_peak(peak)
        totals.add_audit()
        totals.add_run(FAILED, 1.0)
    assert sum(totals.delta.counts) == len(deltas)
    assert sum(totals.peak.counts) == totals.audits == totals.runs == len(peaks)
    assert (totals.delta.sum, totals.peak.sum) == (sum(deltas), sum(peaks))
    assert totals.grown_bytes - totals.released_bytes == sum(deltas)
    assert len(totals.delta.counts) == len(DELTA_BYTES) + 1
    assert len(totals.peak.counts) == len(PEAK_BYTES) + 1


def test_the_totals_of_processes_add_up() -> None:
    one, other = TaskTotals(), TaskTotals()
    one.add_run(SUCCEEDED, 0.5)
    other.add_run(FAILED, 0.25)
    assert sum_of([one, other]).runs_by_outcome == {"succeeded": 1, "failed": 1}


def test_a_report_tells_all_of_it() -> None:
    totals = TaskTotals()
    totals.add_run(SUCCEEDED, 0.5)
    totals.add_delta(5.0)
    totals.add_delta(-3.0)
    totals.add_peak(7.0)
    totals.add_audit()
    report = report_of(totals)
    assert (report.name, report.queue) == ("t", "q")
    assert (report.runs, report.seconds) == ({"succeeded": 1}, {"succeeded": 0.5})
    assert (report.growth_bytes, report.release_bytes, report.delta.sum) == (5.0, 3.0, 2.0)
    assert report.peak == totals.peak
    assert report.retained_blocks == 1.5
    assert report.retained_native_bytes == 2.5
    assert (report.retained_runs, report.audited_runs) == (3, 1)


def test_what_the_system_cannot_measure_is_absent() -> None:
    report = report_of(TaskTotals(), native=False, peak=False)
    assert (report.retained_native_bytes, report.peak) == (None, None)


def test_the_row_ends_with_its_last_bucket() -> None:
    assert Column.END == Column.PEAK + len(PEAK_BYTES) + 1 == len(TaskTotals().figures)
