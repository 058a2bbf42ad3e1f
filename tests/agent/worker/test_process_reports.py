"""What is told of one process."""

from __future__ import annotations

import os

import pytest

from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.worker.figures import OwnFigures
from celery_memory_exporter.agent.worker.ledger import ProcessTotals
from celery_memory_exporter.agent.worker.process_reports import FROM_STATUS, age, process_report
from celery_memory_exporter.agent.worker.records import ProfileRecord
from celery_memory_exporter.common.report import HISTORY, MEAN_BLOCK_BYTES

#: No process has it: the kernel's own limit is 2²².
NO_PID = 2**22 + 1
FIGURES = OwnFigures(
    python_blocks=1_000,
    native_live_bytes=500,
    native_free_bytes=70,
    gc_collections=[3, 2, 1],
    peak_rss_bytes=2**50,
)


def process(figures: OwnFigures = FIGURES) -> ProcessTotals:
    return ProcessTotals(slot=0, start_ticks=70, figures=figures)


def test_what_the_process_told_and_what_the_kernel_tells() -> None:
    report = process_report("0", os.getpid(), process())
    assert (report.process, report.pid, report.start_ticks) == ("0", os.getpid(), 70)
    assert (report.python_blocks, report.gc_collections) == (1_000, [3, 2, 1])
    assert report.rss_bytes
    assert report.threads
    assert report.open_fds
    assert report.zombies is not None


def test_the_kernels_figures_are_those_of_the_same_name() -> None:
    assert (
        {"rss_bytes", "anon_bytes", "shmem_bytes", "swap_bytes"}
        | {"peak_rss_bytes", "threads"} == FROM_STATUS
    )  # fmt: skip


@pytest.mark.parametrize(("told", "higher"), [(2**50, True), (1, False), (None, False)])
def test_the_peak_is_the_higher_one_of_what_both_tell(told: int | None, higher: bool) -> None:
    """The agent starts the kernel's mark anew for each run."""
    report = process_report("0", os.getpid(), process(OwnFigures(peak_rss_bytes=told)))
    assert report.peak_rss_bytes is not None
    assert (report.peak_rss_bytes == told) == higher


def test_of_a_process_that_is_gone_only_what_it_told_is_known() -> None:
    gone = process()
    report = process_report("0", NO_PID, gone)
    assert (report.python_blocks, report.peak_rss_bytes) == (1_000, 2**50)
    assert (report.rss_bytes, report.threads, report.open_fds) == (None, None, None)
    assert report.history == []


def test_a_process_that_has_told_nothing_yet_has_no_history() -> None:
    report = process_report("0", os.getpid(), process(OwnFigures()))
    assert report.python_blocks is None
    assert report.history == []


def test_each_report_is_a_point_of_the_processs_history() -> None:
    living = process()
    process_report("0", os.getpid(), living)
    report = process_report("0", os.getpid(), living)
    assert len(report.history) == 2
    point = dict(zip(HISTORY, report.history[-1], strict=True))
    assert point["live_bytes"] == 1_000 * MEAN_BLOCK_BYTES + 500
    assert (point["rss_bytes"], point["threads"]) == (report.rss_bytes, report.threads)
    assert (point["free_bytes"], point["fds"]) == (70, report.open_fds)


def test_each_point_has_what_runs_were_said_to_have_left_behind_by_then() -> None:
    living = process()
    process_report("0", os.getpid(), living)
    booked = TaskProfile()
    for _ in range(20):
        booked.add_audit(booked.begin(), 2.0, 100.0)
    living.apply(ProfileRecord(1, ("t", ""), booked.row.to_bytes(), replaces=False))
    report = process_report("0", os.getpid(), living)
    per_run = 2 * MEAN_BLOCK_BYTES + 100
    assert report.retained_history == [0, 19 * per_run], "the first run says nothing"


def test_processes_are_sorted_by_their_start() -> None:
    entries = [(1, ProcessTotals(0, 30)), (2, ProcessTotals(0, None)), (3, ProcessTotals(0, 20))]
    assert [pid for pid, _ in sorted(entries, key=age)] == [2, 3, 1]
