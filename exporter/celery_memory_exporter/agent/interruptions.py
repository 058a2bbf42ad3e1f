"""Exceptions that reach the agent's code and are not the agent's own: they go on to whom they were
meant for.

Python raises an exception wherever the thread happens to be, for two reasons:

* a handler of a signal raises it: an alarm of the application's own, a soft time limit;
* another thread sends it: ``PyThreadState_SetAsyncExc``.

If that is within the agent, an ``except`` clause of the agent would swallow it, and the task would
never learn that its time is up. So each ``except`` clause of the agent that may run in a task's
thread calls ``let_pass`` first.
"""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

PACKAGE = __name__.partition(".")[0]
#: Who defines the exceptions that the agent's own calls raise, beside the standard library.
CALLED = frozenset({PACKAGE, "amqp", "billiard", "celery", "kombu", "redis", "vine"})
#: What an interpreter raises without arguments on behalf of the running code.
BARE = (AssertionError, MemoryError, StopIteration, StopAsyncIteration)


def let_pass(error: BaseException) -> None:
    """Raises the exception again unless it is the agent's own; for the ``except`` clause that has
    caught it."""
    if _came_by_signal(error) or _is_sent(error):
        raise error


def collect(generation: int) -> int:
    """``gc.collect`` before a run, of which no time limit is lost.

    What a signal handler raises while a finalizer is called, Python prints and drops. Here it is
    raised when the collection is over.
    """
    arrived: list[BaseException] = []
    before = sys.unraisablehook

    def keep(unraisable: Any) -> None:
        error = unraisable.exc_value
        if error is not None and _came_by_signal(error):
            arrived.append(error)
        else:
            before(unraisable)

    sys.unraisablehook = keep
    try:
        found = gc.collect(generation)
    finally:
        if sys.unraisablehook is keep:
            sys.unraisablehook = before
    if arrived:
        raise arrived[0]
    return found


def _came_by_signal(error: BaseException) -> bool:
    return isinstance(error, SoftTimeLimitExceeded) or is_from_handler(error)


def is_from_handler(error: BaseException) -> bool:
    """Whether a signal handler written in Python raised it.

    The interpreter gives a handler the frame that it interrupts, which is also the frame above it
    in the traceback. No other function is called like that.
    """
    above = error.__traceback__
    while above is not None and above.tb_next is not None:
        if _handles(above.tb_next.tb_frame, above.tb_frame):
            return True
        above = above.tb_next
    return False


def _handles(frame: FrameType, interrupted: FrameType) -> bool:
    if _top_level(frame.f_globals.get("__name__")) == PACKAGE:
        return False
    for value in frame.f_locals.values():
        parts = value if type(value) is tuple else (value,)  # of ``def handler(*args)``
        if any(part is interrupted for part in parts):
            return True
    return False


def _is_sent(error: BaseException) -> bool:
    """Whether another thread sent it, or a handler written in C raised it: it begins in our code,
    or in what that calls, and neither raises such a thing."""
    innermost = error.__traceback__
    if innermost is None:
        return False
    while innermost.tb_next is not None:
        innermost = innermost.tb_next
    place = _top_level(innermost.tb_frame.f_globals.get("__name__"))
    if place not in CALLED and place not in sys.stdlib_module_names:
        return False  # code of the application that the agent has called
    defined_in = _top_level(type.__getattribute__(type(error), "__module__"))
    if defined_in not in CALLED and defined_in not in sys.stdlib_module_names:
        return True
    # A class alone is sent, and the interpreter makes the exception without arguments.
    return place == PACKAGE and not error.args and not isinstance(error, BARE)


def _top_level(module: object) -> str:
    return module.partition(".")[0] if type(module) is str else ""
