"""Which line of the application made a figure rise that ``tracemalloc`` cannot see: memory of C
code, descriptors, threads.

For one run the application's frames (and no library's) are followed line by line; at each line a
cheap figure is read, and what it changed by belongs to the line that ran before. What a library
does belongs to the application's line that called it.

* A debugger or a coverage tool always goes first: where a tracer is set, nothing starts; one set
  meanwhile is left alone.
* The slow-down is bounded: after so many events, or so much time spent in here, following ends by
  itself.
* Kept are file names and numbers: no frame, code object or value. Frames that outlive the run
  (generators) may hold a reference to the watch, which then holds its numbers only.
* Our own memory is not charged to a line: after booking, the figures are read again.

On one thread the figures are still the whole process's: what other threads do meanwhile lands on
the lines of this one. Several runs, then, tell more than one. Under greenlets the lines of all runs
would mix: nothing starts there.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType, MethodType
from typing import Any, TypeAlias

from celery_memory_exporter.agent.application import is_application
from celery_memory_exporter.agent.audit.sites import site_of
from celery_memory_exporter.agent.interruptions import let_pass

Reading: TypeAlias = Callable[[], "float | None"]
#: File and line; for what happened outside the application's lines, the file is empty.
Line: TypeAlias = "tuple[str, int]"
OUTSIDE: Line = ("", 0)

#: What being called for the frame of a library costs. There are many, and asking the clock would
#: double it.
SECONDS_PER_FOREIGN_CALL = 3e-7
#: A rise and a fall that differ by less than this share of themselves are one thing that came and
#: went.
SAME = 0.01
TOP = 5


class LineWatch:
    """Follows one run on this thread, from ``start`` to ``stop``; frames that were entered before
    ``start`` are not followed.

    ``readings``: by name, cheap figures of the process; ``None`` where one cannot be read.
    ``max_events``: lines, calls and returns of the application. ``seconds``: time that the watch
    itself may take, however long the run is.
    """

    def __init__(
        self, readings: Mapping[str, Reading], max_events: int = 20_000, seconds: float = 0.5
    ) -> None:
        self._names = tuple(readings)
        self._readings: tuple[Reading, ...] = tuple(readings.values())
        self._events_left = max_events
        self._seconds_left = seconds
        self._started = self._following = False
        self._values: list[float | None] = []
        self._line: Line = OUTSIDE
        self._booked: dict[Line, list[float]] = {}

    def start(self) -> bool:
        """False, with nothing done, where a tracer is set already, within a greenlet, and the
        second time."""
        if self._started or not self._readings or sys.gettrace() is not None or not may_trace():
            return False
        self._started = self._following = True
        self._values = self._read()
        sys.settrace(self._on_call)
        return True

    def stop(self) -> None:
        """Ends following; safe to call twice, and from another thread (the followed one then
        forgets us at its next event)."""
        if not self._readings:
            return
        self._following = False
        self._undo()
        try:
            if self._started:
                self._book()
        finally:
            self._readings = ()

    def top(self, name: str) -> list[tuple[str, float]]:
        """Lines (``shop/cache.py:42``) by how much they made the figure grow, at most five, the
        most first.

        Empty when the whole run left no growth. A line whose growth an equal fall took back is left
        out: what line 10 allocates and line 20 frees is no growth. Of a fall that equals no rise
        nobody can tell whose it is, so no line is given more than the whole run's growth, and those
        above it, which were taken back in part, come last.
        """
        if name not in self._names:
            return []
        at = self._names.index(name)
        changes = {line: change[at] for line, change in self._booked.items() if change[at]}
        whole = sum(changes.values())
        if whole <= 0:
            return []
        rises = without_cancelled(changes)
        rises.pop(OUTSIDE, None)
        ranked = sorted(
            rises.items(), key=lambda item: (item[1] > whole * (1 + SAME), -item[1], item[0])
        )
        return [(site_of(*line), min(rise, whole)) for line, rise in ranked[:TOP]]

    def _on_call(self, frame: FrameType, event: str, arg: object) -> Any:
        """Python calls this for each new frame; the answer follows its lines."""
        if not self._following:
            self._undo()
            return None
        if is_application(frame.f_code.co_filename):
            return self._on_event(frame, event, arg)
        self._seconds_left -= SECONDS_PER_FOREIGN_CALL
        if self._seconds_left < 0:
            self._give_up()
        return None

    def _on_event(self, frame: FrameType, event: str, arg: object) -> Any:
        """A call, line, return or exception in a followed frame. An exception raised here would
        surface in the task."""
        if not self._following:
            self._undo()
            return None
        begun = time.perf_counter()
        try:
            self._book()
            self._line = self._next_line(frame, event)
        except Exception as error:
            self._give_up()
            let_pass(error)
            # A reading that fails ends the watch, not the run, and is not tried again.
            self._readings = ()
            return None
        self._events_left -= 1
        self._seconds_left -= time.perf_counter() - begun
        if self._events_left < 0 or self._seconds_left < 0:
            self._give_up()
            return None
        return self._on_event

    def _next_line(self, frame: FrameType, event: str) -> Line:
        """Where what happens next belongs: after a return, to the line of the next followed frame
        outwards."""
        if event == "return":
            outer = frame.f_back
            while outer is not None and not self._is_ours(outer.f_trace):
                outer = outer.f_back
            if outer is None:
                return OUTSIDE
            frame = outer
        return frame.f_code.co_filename, frame.f_lineno or 0

    def _book(self) -> None:
        values = self._read()
        changes = [
            0.0 if new is None or old is None else float(new - old)
            for new, old in zip(values, self._values, strict=True)
        ]
        if not any(changes):
            self._values = values
            return
        booked = self._booked.setdefault(self._line, [0.0] * len(changes))
        for at, change in enumerate(changes):
            booked[at] += change
        self._values = self._read()

    def _read(self) -> list[float | None]:
        return [reading() for reading in self._readings]

    def _give_up(self) -> None:
        self._following = False
        self._line = OUTSIDE
        self._undo()

    def _is_ours(self, tracer: object) -> bool:
        """By identity: another's tracer may have its own idea of equality."""
        return type(tracer) is MethodType and tracer.__self__ is self

    def _undo(self) -> None:
        if self._is_ours(sys.gettrace()):
            sys.settrace(None)


def may_trace() -> bool:
    """Whether lines of this thread belong to one run: not within a greenlet, where others run in
    between."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is not None and greenlet.getcurrent().parent is not None:
        return False
    return not isinstance(threading.current_thread(), threading._DummyThread)


def without_cancelled(changes: Mapping[Line, float]) -> dict[Line, float]:
    """The rises, without those that a fall of the same size cancels, each fall cancelling one. The
    order in time does not matter: what a run frees first and allocates again later is no growth,
    either."""
    rises = {line: change for line, change in changes.items() if change > 0}
    for fall in sorted(-change for change in changes.values() if change < 0):
        if rises:
            line = min(rises, key=lambda line: abs(rises[line] - fall))
            if abs(rises[line] - fall) <= fall * SAME:
                del rises[line]
    return rises
