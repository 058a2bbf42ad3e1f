"""One run between two readings."""

from __future__ import annotations

import gc
import resource
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.trace import TraceInfo, trace_ok_t

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter.meter import CALIBRATION_RUNS, Meter
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats import growth, tally
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.growth import LARGE_NATIVE_BYTES, WARM_RUNS
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

KEPT: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    KEPT.clear()


def make_meter(**options: Any) -> Meter:
    """One that reads in every run, however crowded the machine, and audits none."""
    meter = Meter(Guard(), Readings(), **{"max_tasks": 200, "audits": False, **options})
    meter.sampling = Budget(share=0.0, credit=1e6)
    return meter


def answer(info: TraceInfo | None = None, value: Any = None) -> trace_ok_t:
    """The runtime and the text are new objects, as Celery's are."""
    return trace_ok_t(value, info, float("0.25"), f"repr of {value!r:.10}")


def failure() -> trace_ok_t:
    try:
        raise KeyError("x")  # an exception with its traceback is wanted
    except KeyError as error:
        return trace_ok_t(ExceptionInfo(), TraceInfo("FAILURE", error), None, None)


def run(
    meter: Meter,
    body: Callable[[], Any],
    name: str = "t",
    times: int = 1,
    queue: str | None = "celery",
) -> list[float]:
    """The task's row after so many runs; a successful run's value is what ``body`` returns."""
    request = {"delivery_info": {"routing_key": queue}}
    trace = measured(meter, name, lambda *_: answer(value=body()))
    for _ in range(times):
        trace("uuid", (), {}, request)
    return list(meter.books.rows[name, queue or ""])


def retained(meter: Meter, name: str = "t", queue: str = "celery") -> tuple[float, float, float]:
    """Blocks and native bytes per run, and how many runs were measured, without the first one."""
    row = meter.books.growth[name, queue].row
    blocks, native, runs = growth.retained([row])
    after_the_first = row[growth.WIDTH : growth.FAILED]
    measured_runs = sum(
        sum(after_the_first[column :: growth.WIDTH]) for column in (growth.AUDITED, growth.SAMPLED)
    )
    return (blocks / runs, native / runs, measured_runs) if runs else (0.0, 0.0, measured_runs)


def retained_bytes(meter: Meter) -> float:
    """Per run; without audits all of it counts as blocks."""
    blocks, native, _ = retained(meter)
    return blocks * MEAN_BLOCK_BYTES + native


def test_a_run_that_keeps_nothing_retains_nothing() -> None:
    meter = make_meter()
    row = run(meter, lambda: None, times=201)
    assert row[0] == 201
    blocks, _, runs = retained(meter)
    assert 190 <= runs <= 200, (
        "the first run of a process pays for start-up and is left out, as those with a collection "
        "are"
    )
    assert abs(blocks) < 1.5, (
        "the interpreter's free lists move by a block or so; an audit is exact"
    )


def test_twenty_small_objects_a_run_are_twenty_blocks_a_run() -> None:
    room: list[object] = [None] * 20 * 400

    def keep() -> None:
        first = room.index(None)
        for place in range(20):
            room[first + place] = object()

    meter = make_meter()
    run(meter, keep, "keeps", 201)
    run(meter, lambda: None, "keeps none", 201)
    assert round(retained(meter, "keeps")[0] - retained(meter, "keeps none")[0], 1) == 20.0


def test_return_values_are_not_retained() -> None:
    meter = make_meter()
    run(meter, lambda: [str(number) for number in range(100_000)], times=21)
    assert abs(retained_bytes(meter)) < 1024


def test_arguments_are_not_retained() -> None:
    meter = make_meter()
    trace = measured(meter, "t", lambda uuid, args, kwargs, request: answer(value=len(args[0])))
    for _ in range(21):
        trace(
            "uuid",
            ([str(number) for number in range(100_000)],),
            {},
            {"delivery_info": {"routing_key": "celery"}},
        )
    assert abs(retained_bytes(meter)) < 1024


def test_native_memory_that_is_kept_is_retained() -> None:
    meter = make_meter()
    run(meter, lambda: KEPT.append(bytearray(100_000)), times=21)
    assert 99_000 < retained_bytes(meter) < 105_000


def test_with_audits_blocks_and_native_bytes_are_told_apart() -> None:
    meter = make_meter(audits=True)
    run(meter, lambda: KEPT.append(bytearray(100_000)), times=11)
    assert meter.books.growth["t", "celery"].audits > 5
    blocks, native, _ = retained(meter)
    assert 1 <= blocks <= 3
    assert 99_000 < native < 105_000


class Failing:
    """As ``Shares``, and broken."""

    def sizes(self) -> dict[str, int]:
        return {}

    def add_items(self, name: str, before: dict[str, int]) -> None:
        raise RuntimeError(name)


def test_what_fails_after_a_run_keeps_it_from_nobody() -> None:
    told: list[Any] = []
    meter = make_meter(on_close=told.append)
    meter.containers = Failing()
    run(meter, lambda: None, times=WARM_RUNS + 3)
    assert meter.guard.errors == 3
    assert len(told) == WARM_RUNS + 3
    assert meter.idle


def sampled(meter: Meter) -> tuple[float, float]:
    """Runs that were read without an audit, past the first, and their bytes."""
    row = meter.books.growth["t", "celery"].row
    columns = (growth.SAMPLED, growth.SAMPLED_BYTES)
    count, size = (
        sum(row[growth.WIDTH + column : growth.FAILED : growth.WIDTH]) for column in columns
    )
    return count, size


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (LARGE_NATIVE_BYTES // 2, 0.0),
        (2 * LARGE_NATIVE_BYTES, 2.0 * LARGE_NATIVE_BYTES),
        (10**6, 1e6),
    ],
)
def test_beside_audits_a_reading_alone_tells_of_much_only(size: int, told: float) -> None:
    """An audit leaves the interpreter's free lists empty, and the next runs fill them."""
    meter = make_meter(audits=True)
    meter.auditor.budget.spend(1e9)
    run(meter, lambda: KEPT.append(bytearray(size)), times=11)
    count, bytes_ = sampled(meter)
    assert count == 10
    assert bytes_ / 10 == pytest.approx(told, rel=0.05)
    assert meter.books.growth["t", "celery"].audits == 0


def test_a_run_in_which_the_collector_freed_something_is_no_sample() -> None:
    """What it freed is another run's garbage as likely as this one's."""

    def collect() -> None:
        cycle: list[Any] = []
        cycle.append(cycle)
        del cycle
        gc.collect()

    meter = make_meter()
    kept = [[object() for _ in range(1_000)] for _ in range(11)]
    run(meter, lambda: (kept.pop(), collect())[1], times=11)
    assert sampled(meter)[0] == 0


def test_the_value_is_dropped_and_the_rest_of_the_answer_handed_on() -> None:
    trace = measured(make_meter(), "t", lambda *_: trace_ok_t("value", None, 0.5, "'value'"))
    assert trace("uuid", (), {}, {}) == trace_ok_t(None, None, 0.5, "'value'")


def test_a_failed_run_is_counted_and_retains_nothing() -> None:
    meter = make_meter()
    failed = answer(TraceInfo("FAILURE", KeyError("x")))
    trace = measured(meter, "t", lambda *_: failed)
    assert trace("uuid", (), {}, {}) is failed
    assert trace("uuid", (), {}, {}) is failed
    row = meter.books.rows["t", ""]
    assert row[1] == 2
    assert retained(meter, "t", "")[2] == 0


def test_a_failed_run_is_audited_where_the_pool_pickles_it_anyway() -> None:
    meter = make_meter(audits=True, pickles_failures=True)
    trace = measured(meter, "t", lambda *_: failure())
    for _ in range(11):
        trace("uuid", (), {}, {})
    grown = meter.books.growth["t", ""]
    assert grown.row[growth.FAILED] == grown.audits > 5
    assert meter.books.rows["t", ""][1] == 11


@pytest.mark.parametrize("audits", [True, False])
def test_elsewhere_a_failed_run_is_not_measured(audits: bool) -> None:
    meter = make_meter(audits=audits)
    trace = measured(meter, "t", lambda *_: failure())
    for _ in range(3):
        trace("uuid", (), {}, {})
    assert retained(meter, "t", "")[2] == 0
    assert (meter.books.growth["t", ""].audits, meter.books.growth["t", ""].row[growth.FAILED]) == (
        0,
        0,
    )


@pytest.mark.parametrize(
    ("state", "column"), [("RETRY", 2), ("REJECTED", 3), ("IGNORED", 4), ("STRANGE", 1)]
)
def test_other_outcomes(state: str, column: int) -> None:
    meter = make_meter()
    measured(meter, "t", lambda *_: answer(TraceInfo(state, None)))("uuid", (), {}, {})
    assert meter.books.rows["t", ""][column] == 1


def test_a_redelivered_task_that_was_done_already_is_no_run() -> None:
    meter = make_meter()
    measured(meter, "t", lambda *_: trace_ok_t(None, None, None, None))("uuid", (), {}, {})
    assert (meter.books.rows["t", ""][0], meter.books.rows["t", ""][4]) == (0, 1)


def test_what_the_task_raises_passes_and_is_counted() -> None:
    meter = make_meter()

    def trace(*_: Any) -> Any:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        measured(meter, "t", trace)("uuid", (), {}, {})
    assert meter.books.rows["t", ""][5] == 1
    assert meter.idle


def test_the_time_of_runs_is_summed_by_outcome() -> None:
    meter = make_meter()
    measured(meter, "t", lambda *_: time.sleep(0.01) or answer())("uuid", (), {}, {})
    measured(meter, "t", lambda *_: answer(TraceInfo("FAILURE", KeyError("x"))))("uuid", (), {}, {})
    succeeded, failed, *others = meter.books.rows["t", ""][tally.SECONDS : tally.GROWTH]
    assert succeeded >= 0.01 > failed > 0
    assert not any(others)


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
        row = meter.books.rows[name, "celery"]
        assert row[0] == runs
        assert sum(row[tally.DELTA : tally.PEAK]) == 0
        assert sum(meter.books.growth[name, "celery"].row[1:]) == runs - 1, (
            "runs by age and nothing else"
        )


@pytest.mark.parametrize("audits", [True, False])
def test_runs_during_the_agents_own_work_are_left_out_of_what_is_retained(audits: bool) -> None:
    meter = make_meter(audits=audits)
    with meter.housekeeping():
        run(meter, lambda: None, times=3)
    row = meter.books.rows["t", "celery"]
    assert sum(row[tally.DELTA : tally.PEAK]) == 3
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
        with meter.housekeeping():
            pass

    run(meter, work, times=3)
    assert retained(meter)[2] == 0


def test_a_peak_that_is_gone_at_the_end_is_seen() -> None:
    readings = Readings()
    if not readings.reset_peak():
        pytest.skip("/proc/self/clear_refs may not be written here")
    row = run(make_meter(), lambda: len(bytearray(64 * 1024 * 1024)))
    assert row[tally.PEAK_SUM] > 60 * 1024 * 1024
    assert abs(row[tally.DELTA_SUM]) < 32 * 1024 * 1024


def test_the_pools_own_memory_limit_still_sees_a_peak_above_it() -> None:
    """The pool compares ru_maxrss after each run: once it is above the limit, the mark is left
    alone."""
    meter = make_meter(peak_limit_bytes=1)
    peak = bytearray(64 * 1024 * 1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del peak  # memory is below its mark again, whatever ran in this process before
    row = run(meter, lambda: None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >= before
    assert sum(row[tally.PEAK :]) == 0


def test_task_types_beyond_the_cap_are_summed_as_other() -> None:
    meter = make_meter(max_tasks=10)
    for number in range(10_000):
        measured(meter, f"t{number}", lambda *_: answer())("uuid", (), {}, {})
    assert len(meter.books.rows) == 11
    assert meter.books.rows[tally.OTHER][0] == 9_990
    assert meter.books.tasks_folded == 9_990


@pytest.mark.parametrize(
    "request_", [None, {}, {"delivery_info": None}, {"delivery_info": {"routing_key": None}}]
)
def test_a_request_without_a_queue(request_: Any) -> None:
    meter = make_meter()
    measured(meter, "t", lambda *_: answer())("uuid", (), {}, request_)
    assert ("t", "") in meter.books.rows


def test_the_agents_errors_stay_with_the_agent() -> None:
    meter = make_meter()
    trace = measured(meter, "t", lambda *_: answer(value=1))
    assert trace("uuid", (), {}, 5).retstr == "repr of 1"  # 5.get: no request
    assert trace("uuid", (), {}, 5).retstr == "repr of 1"
    assert meter.guard.errors == 2
    assert meter.idle


def test_errors_at_the_end_of_a_run_stay_with_the_agent() -> None:
    def fail(_: object) -> None:
        raise RuntimeError("on_close")

    meter = make_meter()
    meter._on_close = fail
    run(meter, lambda: None, times=3)
    assert meter.guard.errors == 3
    assert meter.books.rows["t", "celery"][0] == 3


def test_a_soft_time_limit_passes() -> None:
    """Celery's signal handler raises it wherever the process is: the agent must not eat it."""

    def interrupted(*_: object) -> None:
        raise SoftTimeLimitExceeded

    meter = make_meter()
    meter._on_open = interrupted
    with pytest.raises(SoftTimeLimitExceeded):
        measured(meter, "t", lambda *_: answer())("uuid", (), {}, {})
    assert meter.idle


def test_a_soft_time_limit_that_comes_when_the_run_is_over_does_not_fail_it() -> None:
    def interrupted(*_: object) -> None:
        raise SoftTimeLimitExceeded

    meter = make_meter()
    meter._on_close = interrupted
    row = run(meter, lambda: None, times=2)
    assert row[0] == 2
    assert meter.idle


def test_tracers_are_wrapped_once_however_often_it_is_asked() -> None:
    meter = make_meter()
    task = SimpleNamespace(__trace__=lambda *_: answer())
    never_traced = SimpleNamespace(__trace__=None)
    for _ in range(3):
        meter.wrap_tasks({"t": task, "never": never_traced})
    task.__trace__("uuid", (), {}, {})
    assert meter.books.rows["t", ""][0] == 1
    assert never_traced.__trace__ is None


def test_readings_have_a_share_of_the_time_and_those_taken_stand_for_the_others() -> None:
    def keep() -> None:
        KEPT.append(
            tuple([object() for _ in range(50)])
        )  # much, beside what free lists take and give

    meter = make_meter()
    run(meter, keep, times=101)
    meter.sampling.spend(1e9)
    run(meter, keep, times=100)
    assert retained(meter)[2] == 100
    blocks, _, runs = growth.retained([meter.books.growth["t", "celery"].row])
    assert runs == 200
    assert blocks == pytest.approx(51 * runs, rel=0.05), "a tuple and what is in it"


def test_a_reading_spends_nothing_while_it_waits_for_a_processor() -> None:
    """As on a crowded machine; here the reading itself waits."""

    class Waiting(Readings):
        seconds = 0.0

        def native_live(self) -> int | None:
            time.sleep(self.seconds)
            return super().native_live()

    readings = Waiting()
    meter = Meter(Guard(), readings, max_tasks=200, audits=False)
    readings.seconds = 0.1
    run(meter, lambda: None)
    assert 0 < meter.sampling.spent < 0.1


def test_calibration_leaves_no_trace() -> None:
    meter = make_meter()
    assert CALIBRATION_RUNS
    assert (meter.books.rows, meter.books.growth) == ({}, {})
    assert (meter.runs, meter.overhead_seconds, meter.busy_seconds, meter.idle) == (
        0,
        0.0,
        0.0,
        True,
    )
    assert (meter.auditor.budget.spent, meter.guard.errors) == (0.0, 0)


def test_calibration_does_not_call_the_owner() -> None:
    called: list[object] = []
    meter = make_meter(on_open=lambda *told: called.append(told), on_close=called.append)
    assert called == []
    run(meter, lambda: None)
    assert [type(each) for each in called] == [tuple, tuple]


@pytest.mark.parametrize("value", [0, True, 12345, "some text", "x" * 10_000])
def test_what_is_returned_makes_no_difference(value: object) -> None:
    meter = make_meter()
    trace = measured(meter, "t", lambda *_: trace_ok_t(value, None, float("0.25"), repr(value)))
    for _ in range(101):
        trace("uuid", (), {}, {"delivery_info": {"routing_key": "celery"}})
    assert abs(retained_bytes(meter)) <= len(repr(value)) + 2 * MEAN_BLOCK_BYTES


@pytest.mark.parametrize("value", [0, True, 12345, "some text", "x" * 10_000])
def test_to_an_audit_what_is_returned_makes_no_difference_at_all(value: object) -> None:
    def blocks_a_run() -> float:
        meter = make_meter(audits=True)
        meter.auditor.budget = Budget(0.0, 1e9)
        trace = measured(
            meter,
            "t",
            lambda *_: trace_ok_t(value, None, float("0.25"), "".join(list(repr(value)))),
        )
        for _ in range(21):
            trace("uuid", (), {}, {"delivery_info": {"routing_key": "celery"}})
        return retained(meter)[0]

    # Blocks are counted in the whole process: once in a while a thread of the test runner keeps
    # some.
    assert 0 in (blocks_a_run() for _ in range(3))
