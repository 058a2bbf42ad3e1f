"""What the demo prints, by values."""

from __future__ import annotations

import dataclasses

import pytest

from celery_memory_exporter.demo import view
from celery_memory_exporter.diagnosis.verdict import Diagnosis
from celery_memory_exporter.fleet.snapshot import Snapshot
from tests import samples
from tests.diagnosis.evidence import snapshot_of
from tests.diagnosis.evidence import view as worker_view

URL = "http://here"
LEAK = "celery_memory_exporter.demo.shop.leak"


def snapshot(number: int, nodename: str = "demo@localhost") -> Snapshot:
    """The worker after so many runs of a type that leaves 1 KiB and ten blocks each."""
    worker = worker_view(None)
    assert worker.report is not None
    task = samples.task(
        LEAK,
        runs={"succeeded": number},
        retained_runs=number,
        retained_native_bytes=124.0 * number,
        retained_blocks=10.0 * number,
    )
    grown = dataclasses.replace(worker.report.objects[0], growth=number)
    report = dataclasses.replace(worker.report, tasks=[task], objects=[grown])
    return snapshot_of(dataclasses.replace(worker, nodename=nodename, report=report))


def lived(*numbers: int) -> view.History:
    history = view.History("demo@localhost", URL)
    for at, number in enumerate(numbers):
        history.add(snapshot(number), 2.0 * at)
    return history


def test_it_starts_with_the_first_report_of_runs() -> None:
    history = view.History("demo@localhost", URL)
    history.add(Snapshot(()), 0.0)
    history.add(snapshot(1, "celery@other"), 0.0)
    assert not history.started
    history.add(snapshot(1), 5.0)
    assert history.started
    assert history.seconds == 0
    history.add(snapshot(2), 7.5)
    assert history.seconds == 2.5


def test_what_a_run_retains_is_told_of_the_later_half() -> None:
    bytes_per_run, blocks_per_run, runs = lived(0, 10, 20, 30, 40).late(LEAK)
    assert (bytes_per_run, blocks_per_run, runs) == (pytest.approx(1024), pytest.approx(10), 20)


def test_nothing_is_retained_by_what_did_not_run() -> None:
    assert lived(5, 5, 5).late(LEAK) == (0.0, 0.0, 0)
    assert lived(5, 6, 7).late("unheard of") == (0.0, 0.0, 0)


def test_the_table_has_tasks_processes_and_what_grows() -> None:
    table = view.table(lived(0, 10, 20, 30, 40), clear=False)
    (row,) = [line for line in table.splitlines() if line.startswith("leak")]
    assert row.split()[:5] == ["leak", "40", "1.0", "KiB", "10.0"]
    assert "RSS         main 50.0 MiB   0 50.0 MiB   1 70.0 MiB" in table
    assert "growing     shop.MyCacheEntry +40" in table
    assert f"{URL}/metrics" in table
    assert "\033" not in table


def test_the_screen_is_cleared_where_it_is_one() -> None:
    assert view.table(lived(1), clear=True).startswith("\033[H\033[J")


def test_what_does_not_rise_is_not_growing() -> None:
    assert "growing     nothing yet" in view.table(lived(7, 7, 7), clear=False)


def test_alerts_are_told_with_their_state_and_task_type() -> None:
    found = [
        ("CeleryTaskLeak", "firing", "celery_memory_exporter.demo.shop.leaks"),
        ("CeleryWorkerDown", "pending", ""),
    ]
    told = view.alerts("http://here/alerts", found)
    assert (
        told
        == "alerts      CeleryTaskLeak firing (leaks), CeleryWorkerDown pending   http://here/alerts"
    )
    assert view.alerts("http://here/alerts", []) == "alerts      none yet   http://here/alerts"


def test_a_run_that_was_too_short_says_so() -> None:
    nothing = Diagnosis([], [], [])
    assert "let the demo run for some seconds longer" in view.summary(lived(), nothing)


def test_a_sparkline_is_scaled_to_its_own_range() -> None:
    assert view.sparkline([0.0, 1e6, 2e6]) == "▁▄█"


def test_a_sparkline_of_little_is_flat() -> None:
    assert view.sparkline([0.0, 10.0, 20.0]) == "▁▁▁"


@pytest.mark.parametrize("number", [1, 23, 24, 25, 100, 1000])
def test_a_sparkline_has_its_width_and_ends_with_the_last_value(number: int) -> None:
    line = view.sparkline([1e6 * at for at in range(1, number + 1)], width=24)
    assert len(line) <= 24
    assert line[-1] == "█"
