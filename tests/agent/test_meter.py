"""One run between two readings."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.trace import TraceInfo, trace_ok_t

from celery_memory_exporter.agent import tally
from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter import CALIBRATION_RUNS, Meter, measured, text_size
from celery_memory_exporter.agent.readings import Readings

KEPT: list[Any] = []


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    KEPT.clear()


def make_meter(**options: Any) -> Meter:
    """One that reads in every run, however crowded the machine."""
    return Meter(Guard(), Readings(), **{"max_tasks": 200, "affordable_seconds": 1.0, **options})


def answer(info: TraceInfo | None = None, value: Any = None) -> trace_ok_t:
    return trace_ok_t(value, info, 0.25, f"repr of {value!r:.10}")


def run(meter: Meter, body: Callable[[], Any], name: str = "t", times: int = 1, queue: str | None = "celery") -> list[float]:
    """The task's row after so many runs; a successful run's value is what ``body`` returns."""
    request = {"delivery_info": {"routing_key": queue}}
    trace = measured(meter, name, lambda *_: answer(value=body()))
    for _ in range(times):
        trace("uuid", (), {}, request)
    return list(meter.rows[name, queue or ""])


def per_run(row: list[float]) -> float:
    return row[tally.RETAINED_BLOCKS] / row[tally.RETAINED_RUNS]


def test_a_run_that_keeps_nothing_retains_nothing() -> None:
    row = run(make_meter(), lambda: None, times=201)
    assert row[0] == 201
    assert row[tally.RETAINED_RUNS] == 200, "the first run of a process pays for start-up and is left out"
    assert abs(per_run(row)) < 0.5


def test_twenty_small_objects_a_run_are_twenty_blocks_a_run() -> None:
    KEPT.extend(range(20 * 400))  # the list has its room already
    del KEPT[:]

    def keep() -> None:
        KEPT.extend([object() for _ in range(20)])

    meter = make_meter()
    keeping, keeping_none = run(meter, keep, "keeps", 201), run(meter, lambda: None, "keeps none", 201)
    assert round(per_run(keeping) - per_run(keeping_none), 1) == 20.0


def test_return_values_are_not_retained() -> None:
    row = run(make_meter(), lambda: [str(number) for number in range(100_000)], times=21)
    assert abs(row[tally.RETAINED_NATIVE]) / 20 < 1024
    assert abs(per_run(row)) < 5


def test_arguments_are_not_retained() -> None:
    meter = make_meter()
    trace = measured(meter, "t", lambda uuid, args, kwargs, request: answer(value=len(args[0])))
    for _ in range(21):
        trace("uuid", ([str(number) for number in range(100_000)],), {}, {})
    row = meter.rows["t", ""]
    assert abs(row[tally.RETAINED_NATIVE]) / 20 < 1024
    assert abs(per_run(list(row))) < 5


def test_native_memory_that_is_kept_is_retained() -> None:
    row = run(make_meter(), lambda: KEPT.append(bytearray(100_000)), times=21)
    assert 99_000 < row[tally.RETAINED_NATIVE] / 20 < 105_000


def test_the_value_is_dropped_and_the_rest_of_the_answer_handed_on() -> None:
    trace = measured(make_meter(), "t", lambda *_: trace_ok_t("value", None, 0.5, "'value'"))
    assert trace("uuid", (), {}, {}) == trace_ok_t(None, None, 0.5, "'value'")


def test_a_failed_run_is_counted_by_its_exception_and_retains_nothing() -> None:
    meter = make_meter()
    failed = answer(TraceInfo("FAILURE", KeyError("x")))
    trace = measured(meter, "t", lambda *_: failed)
    assert trace("uuid", (), {}, {}) is failed
    assert trace("uuid", (), {}, {}) is failed
    row = meter.rows["t", ""]
    assert row[1] == 2
    assert row[tally.RETAINED_RUNS] == 0
    assert meter.exceptions["t", ""] == {"KeyError": 2}


@pytest.mark.parametrize(("state", "column"), [("RETRY", 2), ("REJECTED", 3), ("IGNORED", 4), ("STRANGE", 1)])
def test_other_outcomes(state: str, column: int) -> None:
    meter = make_meter()
    measured(meter, "t", lambda *_: answer(TraceInfo(state, None)))("uuid", (), {}, {})
    assert meter.rows["t", ""][column] == 1


def test_a_redelivered_task_that_was_done_already_is_no_run() -> None:
    meter = make_meter()
    measured(meter, "t", lambda *_: trace_ok_t(None, None, None, None))("uuid", (), {}, {})
    assert (meter.rows["t", ""][0], meter.rows["t", ""][4]) == (0, 1)


def test_what_the_task_raises_passes_and_is_counted() -> None:
    meter = make_meter()

    def trace(*_: Any) -> Any:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        measured(meter, "t", trace)("uuid", (), {}, {})
    assert meter.rows["t", ""][5] == 1
    assert meter.idle


def test_runtime_is_celerys_own() -> None:
    row = run(make_meter(), lambda: None, times=4)
    assert row[tally.RUNTIME_SUM] == 1.0
    assert sum(row[tally.RUNTIME : tally.DELTA]) == 4


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
        row = meter.rows[name, "celery"]
        assert row[0] == runs
        assert sum(row[tally.DELTA : tally.PEAK]) == 0
        assert row[tally.RETAINED_RUNS] == 0


def test_runs_during_the_agents_own_work_are_left_out_of_what_is_retained() -> None:
    meter = make_meter()
    with meter.housekeeping():
        run(meter, lambda: None, times=3)
    row = meter.rows["t", "celery"]
    assert sum(row[tally.DELTA : tally.PEAK]) == 3
    assert row[tally.RETAINED_RUNS] == 0
    run(meter, lambda: None, times=3)
    assert row[tally.RETAINED_RUNS] == 3


def test_a_peak_that_is_gone_at_the_end_is_seen() -> None:
    readings = Readings()
    if not readings.reset_peak():
        pytest.skip("/proc/self/clear_refs may not be written here")
    row = run(make_meter(), lambda: len(bytearray(64 * 1024 * 1024)))
    assert row[tally.PEAK_SUM] > 60 * 1024 * 1024
    assert abs(row[tally.DELTA_SUM]) < 32 * 1024 * 1024


def test_the_pools_own_memory_limit_still_sees_a_peak_above_it() -> None:
    """The pool compares ru_maxrss after each run: once it is above the limit, the mark is left alone."""
    meter = make_meter(peak_limit_bytes=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = run(meter, lambda: None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >= before
    assert sum(row[tally.PEAK :]) == 0


def test_task_types_beyond_the_cap_are_summed_as_other() -> None:
    meter = make_meter(max_tasks=10)
    for number in range(10_000):
        measured(meter, f"t{number}", lambda *_: answer())("uuid", (), {}, {})
    assert len(meter.rows) == 11
    assert meter.rows[tally.OTHER][0] == 9_990
    assert meter.tasks_folded == 9_990


def test_exceptions_beyond_the_cap_are_summed_as_other() -> None:
    meter = make_meter()
    for number in range(60):
        error = type(f"E{number}", (Exception,), {})()
        measured(meter, "t", lambda *_, error=error: answer(TraceInfo("FAILURE", error)))("uuid", (), {}, {})
    assert len(meter.exceptions["t", ""]) == 51
    assert meter.exceptions["t", ""]["other"] == 10


@pytest.mark.parametrize("request_", [None, {}, {"delivery_info": None}, {"delivery_info": {"routing_key": None}}])
def test_a_request_without_a_queue(request_: Any) -> None:
    meter = make_meter()
    measured(meter, "t", lambda *_: answer())("uuid", (), {}, request_)
    assert ("t", "") in meter.rows


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
    assert meter.rows["t", "celery"][0] == 3


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
    assert meter.rows["t", ""][0] == 1
    assert never_traced.__trace__ is None


def test_dear_readings_are_sampled_and_stand_for_the_runs_between() -> None:
    meter = make_meter()
    meter._cost = 500e-6  # as on a heap of many million objects
    meter._stride = meter._until_read = 10
    meter._learn_stride = lambda seconds: None  # type: ignore[method-assign]
    row = run(meter, lambda: KEPT.append(object()), times=201)
    assert row[tally.RETAINED_RUNS] == 200
    assert round(per_run(row)) == 1


def test_calibration_leaves_no_trace() -> None:
    meter = make_meter()
    assert CALIBRATION_RUNS
    assert (meter.rows, meter.runs, meter.overhead_seconds, meter.idle) == ({}, 0, 0.0, True)


@pytest.mark.parametrize(("length", "size"), [(20, (1, 0)), (1000, (0, 1072))])
def test_the_answers_own_text_is_known(length: int, size: tuple[int, int]) -> None:
    blocks, native = text_size(trace_ok_t(None, None, 0.1, "".join(["x"] * length)))
    assert blocks == size[0]
    assert abs(native - size[1]) <= 32  # the header of a string differs between Pythons


@pytest.mark.parametrize("text", [repr(0), repr(True), None])
def test_a_text_that_was_there_before_the_run_counts_for_nothing(text: str | None) -> None:
    assert text_size(trace_ok_t(None, None, 0.1, text)) == (0, 0)


@pytest.mark.parametrize("value", [0, True, 12345, "some text"])
def test_what_is_returned_makes_no_difference(value: object) -> None:
    meter = make_meter()
    trace = measured(meter, "t", lambda *_: trace_ok_t(value, None, 0.25 * len(KEPT), repr(value)))
    for _ in range(101):
        trace("uuid", (), {}, {})
    assert abs(per_run(list(meter.rows["t", ""]))) <= 1
