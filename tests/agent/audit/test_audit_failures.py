"""Audited runs that fail, and what the worker gets as the answer of an audited run."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.trace import TraceInfo, trace_ok_t
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.meter import answers
from celery_memory_exporter.agent.meter.books import TRACEBACK_BLOCKS
from tests.agent.audit.harness import (
    audits,
    failed,
    failing,
    keep,
    make_meter,
    mostly,
    profile_of,
    run,
    totals_of,
)

pytestmark = pytest.mark.usefixtures("heap_as_it_was")


def test_what_an_exception_holds_is_not_left_behind() -> None:
    found = audits(failing(lambda: [str(number) for number in range(10_000)]))
    assert mostly(
        [(each["failed"], each["failed_blocks"], each["blocks"]) for each in found], (1, 0, 0)
    )


def test_a_payload_in_the_failing_frame_is_not_left_behind() -> None:
    def trace(*_: Any) -> trace_ok_t:
        payload = [str(number) for number in range(10_000)]
        try:
            raise ValueError(len(payload))
        except ValueError as error:
            return failed(error)

    assert mostly([each["failed_blocks"] for each in audits(trace)], 0)


def test_what_a_failing_run_keeps_is_told() -> None:
    found = audits(failing(lambda: keep(20)))
    assert all(20 <= each["failed_blocks"] <= 20 + TRACEBACK_BLOCKS for each in found)


def test_what_a_failing_run_keeps_is_told_to_the_block() -> None:
    assert mostly([each["failed_blocks"] for each in audits(failing(lambda: keep(20)))], 20)


def test_the_pool_gets_the_very_same_failure() -> None:
    made: list[ExceptionInfo] = []

    def trace(*_: Any) -> trace_ok_t:
        made.append((answered := failing(lambda: None)()).retval)
        return answered

    meter = make_meter()
    answered = run(meter, trace)
    assert type(answered.retval) is answers.Pickled, "this run was audited"
    got = pickle.loads(pickle.dumps(answered.retval))
    expected = pickle.loads(pickle.dumps(made[0]))
    assert type(got) is ExceptionInfo
    assert (got.type, str(got), got.traceback, got.internal) == (
        made[0].type,
        str(made[0]),
        made[0].traceback,
        made[0].internal,
    )
    assert repr(got.exception) == repr(expected.exception)
    assert [got.tb.tb_lineno, got.tb.tb_frame.f_code.co_name] == [
        made[0].tb.tb_lineno,
        made[0].tb.tb_frame.f_code.co_name,
    ]
    assert (answered.info.state, answered.runtime, answered.retstr) == ("FAILURE", None, None)


@pytest.mark.parametrize("error", [TypeError, SoftTimeLimitExceeded])
def test_an_exception_that_does_not_pickle_is_handed_on_unchanged(error: type[Exception]) -> None:
    class StubbornError(Exception):
        def __reduce__(self) -> Any:
            raise error

    meter = make_meter()
    given = trace_ok_t(StubbornError(), TraceInfo("FAILURE", StubbornError()), None, None)
    assert run(meter, lambda *_: given) is given
    assert profile_of(meter).audits == 0
    assert totals_of(meter).runs_by_outcome == {"failed": 1}


def test_a_failure_that_is_too_long_to_wait_is_handed_on_unchanged() -> None:
    meter = make_meter()
    given = trace_ok_t(
        ValueError("x" * answers.ROOM), TraceInfo("FAILURE", ValueError()), None, None
    )
    assert run(meter, lambda *_: given) is given
    assert profile_of(meter).audits == 0


def test_failures_stay_as_they_are_where_the_pool_does_not_pickle() -> None:
    meter = make_meter(pickles_failures=False)
    given = failing(lambda: None)()
    assert run(meter, lambda *_: given) is given
    assert profile_of(meter).audits == 0


# --- what the worker gets -----------------------------------------------------------------------


@given(st.none() | st.text(st.characters(codec=None, categories=None)), st.floats(0, 1e6))
def test_the_worker_gets_what_the_tracer_answered(text: str | None, runtime: float) -> None:
    stash = answers.Stash()
    stashed = stash.put(trace_ok_t(object(), None, runtime, text))
    assert (stashed.retval, stashed.retstr) == (None, None)
    assert stash.take(stashed) == trace_ok_t(None, None, runtime, text)


def test_surrogates_pass() -> None:
    text = "\ud800 and \udfff"
    assert run(make_meter(), lambda *_: trace_ok_t(None, None, 0.5, text)).retstr == text


def test_a_text_that_does_not_fit_the_stash_is_handed_on() -> None:
    text = "x" * (answers.ROOM + 1)
    meter = make_meter()
    answered = run(meter, lambda *_: trace_ok_t(1, None, 0.5, text))
    assert answered == (None, None, 0.5, text)
    assert profile_of(meter).audits == 0
