"""One run between two readings: what is counted, whom it concerns, what fails."""

from __future__ import annotations

import resource
import threading
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.trace import TraceInfo, trace_ok_t

from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.agent.stats.profile import Failed
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.stats.tally import Column as Total
from celery_memory_exporter.common.evidence import WARM_RUNS
from tests.agent.meter.runs import (
    answer,
    failure,
    make_meter,
    retained,
    run,
)


class Failing:
    """As ``Shares``, and broken."""

    def sizes(self) -> dict[str, int]:
        return {}

    def add_items(self, name: str, before: dict[str, int]) -> None:
        raise RuntimeError(name)


def test_what_fails_after_a_run_keeps_it_from_nobody() -> None:
    told: list[Any] = []
    meter = make_meter(on_close=lambda key, _: told.append(key))
    meter.containers = Failing()
    run(meter, lambda: None, times=WARM_RUNS + 3)
    assert meter.guard.errors == 3
    assert len(told) == WARM_RUNS + 3
    assert meter.occupancy.idle


def test_the_value_is_dropped_and_the_rest_of_the_answer_handed_on() -> None:
    trace = measured(make_meter(), "t", lambda *_: trace_ok_t("value", None, 0.5, "'value'"))
    assert trace("uuid", (), {}, {}) == trace_ok_t(None, None, 0.5, "'value'")


def test_a_failed_run_is_counted_and_retains_nothing() -> None:
    meter = make_meter()
    failed = answer(TraceInfo("FAILURE", KeyError("x")))
    trace = measured(meter, "t", lambda *_: failed)
    assert trace("uuid", (), {}, {}) is failed
    assert trace("uuid", (), {}, {}) is failed
    row = meter.totals.rows["t", ""]
    assert row.runs_by_outcome == {"failed": 2}
    assert retained(meter, "t", "")[2] == 0


def test_a_failed_run_is_audited_where_the_pool_pickles_it_anyway() -> None:
    meter = make_meter(audits=True, pickles_failures=True)
    trace = measured(meter, "t", lambda *_: failure())
    for _ in range(11):
        trace("uuid", (), {}, {})
    grown = meter.totals.growth["t", ""]
    assert grown.row.figures[Failed.AUDITS] == grown.audits > 5
    assert meter.totals.rows["t", ""].runs_by_outcome == {"failed": 11}


@pytest.mark.parametrize("audits", [True, False])
def test_elsewhere_a_failed_run_is_not_measured(audits: bool) -> None:
    meter = make_meter(audits=audits)
    trace = measured(meter, "t", lambda *_: failure())
    for _ in range(3):
        trace("uuid", (), {}, {})
    assert retained(meter, "t", "")[2] == 0
    assert (
        meter.totals.growth["t", ""].audits,
        meter.totals.growth["t", ""].row.figures[Failed.AUDITS],
    ) == (
        0,
        0,
    )


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("RETRY", "retried"),
        ("REJECTED", "rejected"),
        ("IGNORED", "ignored"),
        ("STRANGE", "failed"),
    ],
)
def test_other_outcomes(state: str, outcome: str) -> None:
    meter = make_meter()
    measured(meter, "t", lambda *_: answer(TraceInfo(state, None)))("uuid", (), {}, {})
    assert meter.totals.rows["t", ""].runs_by_outcome == {outcome: 1}


def test_a_redelivered_task_that_was_done_already_is_no_run() -> None:
    meter = make_meter()
    measured(meter, "t", lambda *_: trace_ok_t(None, None, None, None))("uuid", (), {}, {})
    assert meter.totals.rows["t", ""].runs_by_outcome == {"ignored": 1}


def test_what_the_task_raises_passes_and_is_counted() -> None:
    meter = make_meter()

    def trace(*_: Any) -> Any:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        measured(meter, "t", trace)("uuid", (), {}, {})
    assert meter.totals.rows["t", ""].runs_by_outcome == {"aborted": 1}
    assert meter.occupancy.idle


def test_the_time_of_runs_is_summed_by_outcome() -> None:
    meter = make_meter()
    run(meter, lambda: None, times=3)
    assert meter.busy.seconds > 0
    assert meter.totals.rows["t", "celery"].seconds_by_outcome == {"succeeded": meter.busy.seconds}


def test_runs_that_overlap_are_counted_and_left_out_of_the_memory_figures() -> None:
    meter = make_meter()
    inside, leave = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert leave.wait(30)

    thread = threading.Thread(target=run, args=(meter, wait, "long"))
    thread.start()
    assert inside.wait(30)
    run(meter, lambda: None, "short", 3)
    leave.set()
    thread.join()
    for name, runs in (("long", 1), ("short", 3)):
        row = meter.totals.rows[name, "celery"]
        assert row.runs_by_outcome == {"succeeded": runs}
        assert sum(row.delta.counts) == 0
        assert sum(meter.totals.growth[name, "celery"].row.figures[1:]) == runs - 1, (
            "runs by age and nothing else"
        )


@pytest.mark.parametrize("audits", [True, False])
def test_runs_during_the_agents_own_work_are_left_out_of_what_is_retained(audits: bool) -> None:
    meter = make_meter(audits=audits)
    with meter.occupancy.housekeeping():
        run(meter, lambda: None, times=3)
    row = meter.totals.rows["t", "celery"]
    assert sum(row.figures[Total.DELTA : Total.PEAK]) == 3
    assert retained(meter)[2] == 0
    run(meter, lambda: None, times=3)
    assert retained(meter)[2] == 3


@pytest.mark.parametrize("audits", [True, False])
def test_a_run_that_the_agents_own_work_falls_into_is_left_out_of_what_is_retained(
    audits: bool,
) -> None:
    meter = make_meter(audits=audits)
    run(meter, lambda: None)

    def work() -> None:
        with meter.occupancy.housekeeping():
            pass

    run(meter, work, times=3)
    assert retained(meter)[2] == 0


def test_a_peak_that_is_gone_at_the_end_is_seen() -> None:
    readings = Readings()
    if not readings.reset_peak():
        pytest.skip("/proc/self/clear_refs may not be written here")
    row = run(make_meter(), lambda: len(bytearray(64 * 1024 * 1024)))
    assert row.peak.sum > 60 * 1024 * 1024
    assert abs(row.delta.sum) < 32 * 1024 * 1024


def test_the_pools_own_memory_limit_still_sees_a_peak_above_it() -> None:
    """The pool compares ru_maxrss after each run: once it is above the limit, the mark is left
    alone."""
    meter = make_meter(peak_limit_bytes=1)
    peak = bytearray(64 * 1024 * 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del peak  # memory is below its mark again, whatever ran in this process before
    row = run(meter, lambda: None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >= before
    assert sum(row.peak.counts) == 0


def test_the_agents_errors_stay_with_the_agent() -> None:
    meter = make_meter()
    trace = measured(meter, "t", lambda *_: answer(value=1))
    assert trace("uuid", (), {}, 5).retstr == "repr of 1"  # 5.get: no request
    assert trace("uuid", (), {}, 5).retstr == "repr of 1"
    assert meter.guard.errors == 2
    assert meter.occupancy.idle


def test_errors_at_the_end_of_a_run_stay_with_the_agent() -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("on_close")

    meter = make_meter(on_close=fail)
    run(meter, lambda: None, times=3)
    assert meter.guard.errors == 3
    assert meter.totals.rows["t", "celery"].runs_by_outcome == {"succeeded": 3}


def test_a_soft_time_limit_passes() -> None:
    """Celery's signal handler raises it wherever the process is: the agent must not eat it."""

    def interrupted(*_: object) -> None:
        raise SoftTimeLimitExceeded

    meter = make_meter(on_open=interrupted)
    with pytest.raises(SoftTimeLimitExceeded):
        measured(meter, "t", lambda *_: answer())("uuid", (), {}, {})
    assert meter.occupancy.idle


def test_a_soft_time_limit_that_comes_when_the_run_is_over_does_not_fail_it() -> None:
    def interrupted(*_: object) -> None:
        raise SoftTimeLimitExceeded

    meter = make_meter(on_close=interrupted)
    row = run(meter, lambda: None, times=2)
    assert row.runs_by_outcome == {"succeeded": 2}
    assert meter.occupancy.idle


def test_everything_that_is_to_be_told_is_one_answer() -> None:
    meter = make_meter(max_tasks=1)
    run(meter, lambda: None, "t", 3)
    for _ in range(2):
        measured(meter, "u", lambda *_: answer())("uuid", (), {}, {})
    told = meter.measurements()
    assert {key: row.runs for key, row in told.totals.items()} == {
        ("t", "celery"): 3,
        tally.OTHER: 2,
    }
    assert told.growth.keys() == told.totals.keys()
    assert (told.dossiers, told.containers) == ({}, [])
    assert (told.costs.errors, told.costs.tasks_folded) == (0, 2)
    assert told.costs.seconds > 0


def test_what_is_told_of_a_type_goes_on_rising() -> None:
    meter = make_meter()
    run(meter, lambda: None, "t")
    told = meter.measurements()
    run(meter, lambda: None, "t")
    assert told.totals["t", "celery"].runs == 2
