"""What a tracer answers with, and how it is kept out of the closing readings."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery.app.trace import TraceInfo, trace_ok_t
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.meter.answers import (
    ROOM,
    SUCCEEDED,
    Pickled,
    Stash,
    failed_answer,
    outcome_of,
    succeeded_answer,
    without_value,
)
from celery_memory_exporter.common.report import OUTCOMES


def failed(error: Exception) -> trace_ok_t:
    try:
        raise error
    except Exception as raised:
        return trace_ok_t(ExceptionInfo(), TraceInfo("FAILURE", raised), 0.5, "repr")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (trace_ok_t("value", None, 0.5, "'value'"), "succeeded"),
        (trace_ok_t(None, TraceInfo("FAILURE", None), 0.5, None), "failed"),
        (trace_ok_t(None, TraceInfo("RETRY", None), 0.5, None), "retried"),
        (trace_ok_t(None, TraceInfo("REJECTED", None), 0.5, None), "rejected"),
        (trace_ok_t(None, TraceInfo("IGNORED", None), 0.5, None), "ignored"),
        (trace_ok_t(None, TraceInfo("A STATE OF THEIR OWN", None), 0.5, None), "failed"),
        (trace_ok_t(None, None, None, None), "ignored"),
    ],
)
def test_outcomes(answer: trace_ok_t, outcome: str) -> None:
    assert OUTCOMES[outcome_of(answer)] == outcome


def test_only_the_value_is_dropped() -> None:
    given = trace_ok_t(object(), None, 0.5, "text")
    assert without_value(given) == trace_ok_t(None, None, 0.5, "text")


@given(st.none() | st.text(max_size=2_000))
def test_a_text_that_was_put_is_taken_again(text: str | None) -> None:
    stash = Stash()
    empty = stash.put(trace_ok_t("value", None, 0.5, text))
    assert empty == trace_ok_t(None, None, 0.5, None), "nothing is left in the answer meanwhile"
    assert stash.take(empty) == trace_ok_t(None, None, 0.5, text)


def test_a_failure_that_was_put_reaches_the_pool_as_the_same_failure() -> None:
    stash = Stash()
    given = failed(KeyError("x"))
    empty = stash.put(given)
    assert (empty.retval, empty.retstr) == (None, None)
    assert empty.info.state == "FAILURE"
    assert empty.info.retval is None, "no exception is left in the answer meanwhile"
    taken = pickle.loads(pickle.dumps(stash.take(empty).retval))
    assert taken.traceback == given.retval.traceback
    assert repr(taken.exception) == repr(pickle.loads(pickle.dumps(given.retval)).exception)


class UnpicklableError(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("not this one")


@pytest.mark.parametrize(
    "answer",
    [
        trace_ok_t(None, None, 0.5, "x" * (ROOM + 1)),
        failed(ValueError("x" * ROOM)),
        trace_ok_t(UnpicklableError(), TraceInfo("FAILURE", None), 0.5, None),
    ],
    ids=["long text", "long failure", "does not pickle"],
)
def test_what_cannot_be_put_changes_nothing(answer: trace_ok_t) -> None:
    stash = Stash()
    before = stash.put(trace_ok_t(None, None, 0.5, "before"))
    assert stash.put(answer) is None
    assert stash.take(before).retstr == "before"


def test_pickled_data_pickles_as_what_it_was_made_of() -> None:
    value = {"a": [1, 2]}
    assert pickle.loads(pickle.dumps(Pickled(pickle.dumps(value)))) == value


def test_calibration_runs_answer_like_real_ones() -> None:
    assert outcome_of(succeeded_answer()) == SUCCEEDED
    assert OUTCOMES[outcome_of(failed_answer())] == "failed"
    assert Stash().put(failed_answer()) is not None
