"""What the runs of a process add up to."""

from __future__ import annotations

import math
from typing import Any

import pytest

from celery_memory_exporter.agent.audit.finding import Finding
from celery_memory_exporter.agent.meter.answers import FAILED, SUCCEEDED
from celery_memory_exporter.agent.meter.books import NO_BIASES, Bias, Biases, Costs, Totals
from celery_memory_exporter.agent.meter.run import Run
from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.agent.stats.growth import WARM_RUNS_AT_LEAST
from celery_memory_exporter.agent.stats.profile import Column, Failed
from celery_memory_exporter.agent.stats.tally import Column as Total

MIB = 1024 * 1024


def new_run(totals: Totals, **figures: Any) -> Run:
    """Its own readings before it are 1,000 blocks, 50,000 native bytes and 10 MiB resident."""
    run = Run()
    run.key, run.row, run.growth = totals.row_of("t", {"delivery_info": {"routing_key": "q"}})
    run.age = run.growth.begin()
    readings = {"outcome": SUCCEEDED, "blocks": 1_000, "native": 50_000, "rss": 10 * MIB}
    for name, value in {**readings, "peak_reset": True, "cpu": 0.5, **figures}.items():
        setattr(run, name, value)
    return run


def finding(**figures: Any) -> Finding:
    values = {"native": 0.0, "blocks": 0.0, "fds": 0.0, "threads": 0.0, "children": 0.0}
    values |= {"shared": 0.0, "garbage_blocks": 0.0, "garbage_native": 0.0}
    return Finding(**{**values, "types": {}, **figures})


@pytest.mark.parametrize(
    ("request_", "queue"),
    [
        (None, ""),
        ({}, ""),
        ({"delivery_info": None}, ""),
        ({"delivery_info": {"routing_key": None}}, ""),
        ({"delivery_info": {"routing_key": "mail"}}, "mail"),
        ({"delivery_info": {"routing_key": "q" * 500}}, "q" * 120),
    ],
)
def test_runs_are_told_apart_by_task_type_and_queue(request_: Any, queue: str) -> None:
    totals = Totals(200, NO_BIASES)
    key, row, grown = totals.row_of("t", request_)
    assert key == ("t", queue)
    assert totals.rows[key] is row
    assert totals.growth[key] is grown


def test_task_types_beyond_the_cap_are_one() -> None:
    totals = Totals(10, NO_BIASES)
    for number in range(10_000):
        totals.row_of(f"t{number}", None)
    assert len(totals.rows) == len(totals.growth) == 11
    assert totals.row_of("t10", None)[0] == tally.OTHER
    assert totals.row_of("t9", None)[0] == ("t9", "")
    assert totals.tasks_folded == 9_991


def test_a_run_counts_with_its_seconds_by_its_outcome() -> None:
    totals = Totals(200, NO_BIASES)
    run = new_run(totals, outcome=FAILED)
    run.row.add_run(FAILED, 0.25)
    run.row.add_run(FAILED, 0.5)
    assert (run.row.figures[FAILED], run.row.figures[Total.SECONDS + FAILED]) == (2, 0.75)
    assert (run.row.figures[SUCCEEDED], run.row.figures[Total.SECONDS + SUCCEEDED]) == (0, 0)


BIASES = Biases(Bias(1.0, 10.0), Bias(2.0, 20.0), Bias(3.0, 30.0), least_failed=3)


def columns(run: Run, *names: str) -> list[float]:
    return [run.growth.row[run.age, Column[name.upper()]] for name in names]


def test_the_meters_own_share_is_taken_off_a_reading() -> None:
    totals = Totals(200, BIASES)
    run = new_run(totals)
    totals.add_sample(run, 1_006, 50_060, freed=False, only_large=False)
    assert columns(run, "sampled", "sampled_bytes") == [1, 5 * 90 + 50]


def test_native_bytes_that_could_not_be_read_are_none() -> None:
    totals = Totals(200, BIASES)
    run = new_run(totals)
    totals.add_sample(run, 1_006, None, freed=False, only_large=False)
    assert columns(run, "sampled", "sampled_bytes") == [1, 5 * 90]


@pytest.mark.parametrize(("blocks", "samples"), [(900, 0), (1_001, 0), (1_100, 1)])
def test_beside_a_collection_that_freed_something_only_a_rise_is_believed(
    blocks: int, samples: int
) -> None:
    totals = Totals(200, BIASES)
    run = new_run(totals)
    totals.add_sample(run, blocks, None, freed=True, only_large=False)
    assert columns(run, "sampled") == [samples]


def test_the_meters_own_share_is_taken_off_an_audit() -> None:
    totals = Totals(200, BIASES)
    run = new_run(totals)
    totals.add_finding(run, finding(blocks=12.0, native=70.0, fds=1.0, garbage_blocks=4.0))
    assert columns(run, "audited", "blocks", "native", "fds", "garbage_blocks") == [1, 10, 50, 1, 4]
    assert (run.row.figures[Total.AUDITED], run.growth.cpu_seconds) == (1, 0.5)


def test_survivors_are_told_after_the_first_runs() -> None:
    totals = Totals(200, BIASES)
    for number in range(WARM_RUNS_AT_LEAST + 2):
        run = new_run(totals)
        totals.add_finding(run, finding(types={"shop.Cart": 1}))
        assert run.growth.survivors.get("shop.Cart", 0) == max(0, number + 1 - WARM_RUNS_AT_LEAST)


@pytest.mark.parametrize(("left", "blocks", "native"), [(6.0, 0.0, 0.0), (7.0, 4.0, 70.0)])
def test_a_failed_run_left_nothing_unless_it_is_more_than_a_traceback(
    left: float, blocks: float, native: float
) -> None:
    totals = Totals(200, BIASES)
    run = new_run(totals, outcome=FAILED)
    totals.add_finding(run, finding(blocks=left, native=100.0))
    row = run.growth.row
    assert [row.figures[Failed.AUDITS + at] for at in range(3)] == [1, blocks, native]
    assert columns(run, "blocks", "native") == [blocks, native]


def test_of_a_deep_audit_only_much_counts_and_only_as_a_reading() -> None:
    totals = Totals(200, BIASES)
    run = new_run(totals, deep=True)
    totals.add_finding(run, finding(blocks=102.0))
    assert columns(run, "audited", "sampled", "sampled_bytes") == [0, 1, 0]
    totals.add_finding(run, finding(blocks=10_002.0))
    assert columns(run, "sampled", "sampled_bytes") == [2, 10_000 * 90]


def test_without_calibration_nothing_is_taken_off() -> None:
    assert NO_BIASES.sample == NO_BIASES.audit == NO_BIASES.failed == (0.0, 0.0)
    assert NO_BIASES.least_failed == -math.inf


def test_costs_add_up_figure_by_figure() -> None:
    assert Costs(1.5, 2, 3) + Costs(0.5, 10, 100) == Costs(2.0, 12, 103)
    assert sum([Costs(1.0, 1, 1)] * 3, Costs()) == Costs(3.0, 3, 3)
