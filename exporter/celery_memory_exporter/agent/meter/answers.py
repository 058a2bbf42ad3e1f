"""What a tracer answers with (``trace_ok_t``), and how it is kept out of the closing readings.

A successful run's value is dropped: the worker uses only its ``repr``. A failed run's answer holds
the exception and, through its traceback, frames; in a pool child it is pickled right after anyway,
so for an audited run it is pickled at once, and the exception is free to go. What is left is bytes,
which wait in room made beforehand while the readings are taken.
"""

from __future__ import annotations

import pickle
import time
from array import array
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.app.trace import TraceInfo, trace_ok_t

from celery_memory_exporter.agent.interruptions import is_from_handler
from celery_memory_exporter.common.report import OUTCOMES

SUCCEEDED, FAILED, ABORTED = (
    OUTCOMES.index("succeeded"),
    OUTCOMES.index("failed"),
    OUTCOMES.index("aborted"),
)
OUTCOME_OF_STATE = {
    "FAILURE": FAILED,
    "RETRY": OUTCOMES.index("retried"),
    "REJECTED": OUTCOMES.index("rejected"),
    "IGNORED": OUTCOMES.index("ignored"),
}
#: A ``repr`` is cut at 1,024 characters by default; a pickled failure has its traceback twice.
ROOM = 64 * 1024


def outcome_of(answer: Any) -> int:
    """Index into ``OUTCOMES``. A run without runtime did not happen: Celery found a redelivered
    task done already."""
    if answer.info is not None:
        return OUTCOME_OF_STATE.get(answer.info.state, FAILED)
    return SUCCEEDED if answer.runtime is not None else OUTCOME_OF_STATE["IGNORED"]


def without_value(answer: Any) -> Any:
    """The answer without what a successful run returned."""
    if answer.info is not None or answer.retval is None:
        return answer
    return trace_ok_t(None, None, answer.runtime, answer.retstr)


class Pickled:
    """Pickles as what it was made of."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return pickle.loads, (self.data,)


class Stash:
    """Holds the contents of one answer without an allocation that the readings could see."""

    def __init__(self) -> None:
        self._room = bytearray(ROOM)
        # An array: a number above 256 is an object of its own, which would count for this run and
        # against another one.
        self._size = array("q", [0])
        self._has_text = False

    def put(self, answer: Any) -> Any:
        """An answer without contents in the place of this one; ``None`` when it cannot be done, and
        nothing has changed.

        It cannot where the contents are too long, or the failure does not pickle, which the pool
        then tells.
        """
        try:
            data = _encoded(answer)
        except Exception as error:  # whatever the application's exception raises in its __reduce__
            if is_from_handler(error):
                raise
            return None
        if len(data) > ROOM:
            return None
        self._size[0] = len(data)
        self._has_text = answer.retstr is not None
        self._room[: len(data)] = data
        return trace_ok_t(
            None,
            TraceInfo(answer.info.state, None) if answer.info is not None else None,
            answer.runtime,
            None,
        )

    def take(self, answer: Any) -> Any:
        """The answer that ``put`` was given, as far as the pool needs it."""
        data = bytes(self._room[: self._size[0]])
        if answer.info is not None:
            return trace_ok_t(Pickled(data), answer.info, answer.runtime, None)
        return trace_ok_t(
            None,
            None,
            answer.runtime,
            data.decode("utf-8", "surrogatepass") if self._has_text else None,
        )


def _encoded(answer: Any) -> bytes:
    if answer.info is not None:
        return pickle.dumps(answer.retval, pickle.HIGHEST_PROTOCOL)
    return (answer.retstr or "").encode("utf-8", "surrogatepass")


def failed_answer() -> Any:
    """Like that of a task that failed, to calibrate with."""
    try:
        raise ValueError("calibration")  # an exception with its traceback is wanted
    except ValueError as error:
        return trace_ok_t(ExceptionInfo(), TraceInfo("FAILURE", error), None, None)


def succeeded_answer() -> Any:
    """Like that of a task that returned some number, to calibrate with."""
    return trace_ok_t(None, None, time.perf_counter(), repr(time.time()))
