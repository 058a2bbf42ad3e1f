"""Tier 0: a reading before and after every task run, around ``task.__trace__``, the one call that each pool makes.

``task_prerun`` and ``task_postrun`` are too late and too early: at ``task_postrun`` the return value, the request and the
exception are still referenced. Around ``__trace__`` the arguments are alive at both ends and cancel out, and a successful
run's return value can be dropped before the closing reading, because the worker only uses its ``repr``.

What the figures rest on:

* memory figures come from runs that had their process to themselves; a run during which another one was active (thread,
  greenlet) is counted as a run and left out of the memory figures, and one during which the agent itself was at work is
  left out of the retained figures;
* retained memory is counted for successful runs only: a failed run's answer holds the exception and, through its traceback,
  the frames. Each process's first run of a type pays for imports, connections and caches, and is left out as well;
* the readings' own constant share (the objects that hold the opening readings, the answer itself) is measured with a task that
  does nothing and subtracted;
* where live blocks get dear to read (50 µs at a million objects) they are read in every k-th run, and count k times.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent import tally
from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.readings import Readings
from celery_memory_exporter.agent.tally import Row, TaskKey
from celery_memory_exporter.report import OUTCOMES

#: What reading live memory at both ends may cost a run on average, before it is done in every k-th run only: 2 % of what the
#: smallest task costs a worker with a broker (2.5 ms of CPU).
AFFORDABLE_SECONDS = 50e-6
MAX_STRIDE = 1_000
MAX_EXCEPTIONS = 50
OTHER_EXCEPTIONS = "other"
CALIBRATION_RUNS = 25

SUCCEEDED, FAILED, ABORTED = OUTCOMES.index("succeeded"), OUTCOMES.index("failed"), OUTCOMES.index("aborted")
OUTCOME_OF_STATE = {
    "FAILURE": FAILED,
    "RETRY": OUTCOMES.index("retried"),
    "REJECTED": OUTCOMES.index("rejected"),
    "IGNORED": OUTCOMES.index("ignored"),
}

Trace = Callable[..., Any]


class Run:
    """The opening readings of one run."""

    __slots__ = ("active", "alone", "blocks", "epoch", "key", "native", "peak_reset", "row", "rss", "stride", "work")

    key: TaskKey
    row: Row
    #: Whether it is among those running.
    active: bool
    epoch: int
    #: How often the agent had been at work before this run.
    work: int
    alone: bool
    #: How many runs this one stands for in the retained figures; 0 where live memory was not read.
    stride: int
    peak_reset: bool
    rss: int | None
    native: int | None
    blocks: int


def short_name(name: object) -> str:
    """A label value from what users or the network chose, as long as the exporter shows it."""
    return str(name)[:120]


class Meter:
    """Measures the runs of one process. ``on_open`` and ``on_close`` tell the owner which run begins and what it changed."""

    def __init__(
        self,
        guard: Guard,
        readings: Readings,
        *,
        max_tasks: int,
        peak_limit_bytes: int | None = None,
        affordable_seconds: float = AFFORDABLE_SECONDS,
        on_open: Callable[[str, int | None], None] | None = None,
        on_close: Callable[[TaskKey], None] | None = None,
    ) -> None:
        self.guard = guard
        self.rows: dict[TaskKey, Row] = {}
        self.exceptions: dict[TaskKey, dict[str, int]] = {}
        self.overhead_seconds = 0.0
        self.tasks_folded = 0
        self.runs = 0
        self._readings = readings
        self._max_tasks = max_tasks
        self._peak_limit_bytes = peak_limit_bytes
        self._affordable_seconds = affordable_seconds
        self._on_open = on_open
        self._on_close = on_close
        self._lock = threading.Lock()
        self._running = self._working = 0
        self._epoch = self._work = 0
        self._cost = 0.0
        self._stride = self._until_read = 1
        self._bias_blocks = self._bias_native = 0.0
        self._calibrate()

    # --- wrapping ---------------------------------------------------------------------------------------------------

    def wrap_tasks(self, tasks: dict[str, Any]) -> None:
        """Wraps the tracer of each task that is not wrapped yet; Celery builds new ones at each (re)start."""
        for name, task in list(tasks.items()):
            trace = task.__dict__.get("__trace__") or getattr(task, "__trace__", None)
            if trace is not None and getattr(trace, "__code__", None) is not MEASURED_CODE:
                task.__trace__ = measured(self, short_name(name), trace)

    # --- one run ----------------------------------------------------------------------------------------------------

    def open(self, name: str, request: Any) -> Run | None:
        """Takes the opening readings; ``None`` when the agent failed."""
        begun = time.perf_counter()
        run = Run()
        run.active = False
        try:
            run.key, run.row = self._row_of(name, request)
            with self._lock:
                run.active = True
                self._epoch += 1
                self._running += 1
                run.epoch, run.work = self._epoch, self._work
                run.alone = self._running == 1
            run.stride = self._take_stride() if run.alone and not self._working else 0
            run.peak_reset = run.alone and self._reset_peak()
            run.rss = self._readings.rss()
            if self._on_open is not None:
                self._on_open(name, run.rss)
            self.overhead_seconds += time.perf_counter() - begun
            if run.stride:
                run.native = self._readings.native_live()
                run.blocks = sys.getallocatedblocks()
            return run
        except SoftTimeLimitExceeded:
            self._leave(run)
            raise
        except Exception:
            self._leave(run)
            self.guard.note("Meter.open")
            return None

    def close(self, run: Run | None, answer: Any, error: BaseException | None = None) -> None:
        """Takes the closing readings and adds the run to its type's row.

        Raises nothing, not even a soft time limit that arrives in here: the run is over, and its result is stored.
        """
        if run is None:
            return
        try:
            self._close(run, answer, error)
        except Exception:
            self.guard.note("Meter.close")
        finally:
            self._leave(run)

    def _close(self, run: Run, answer: Any, error: BaseException | None) -> None:
        begun = time.perf_counter()
        blocks = sys.getallocatedblocks() if run.stride else 0
        native = self._readings.native_live() if run.stride else None
        if run.stride:
            self._learn_stride(time.perf_counter() - begun)
        rss = self._readings.rss()
        self._leave(run)
        with self._lock:
            run.alone = run.alone and self._epoch == run.epoch
            outcome = self._add(run, answer, error)
            if run.alone:
                self._add_memory(run, rss)
            if run.alone and run.stride and run.work == self._work and outcome == SUCCEEDED:
                self._add_retained(run, answer, blocks, native)
            self.runs += 1
        if self._on_close is not None:
            self._on_close(run.key)
        self.overhead_seconds += time.perf_counter() - begun

    def _leave(self, run: Run) -> None:
        with self._lock:
            if run.active:
                run.active = False
                self._running -= 1

    @contextmanager
    def housekeeping(self) -> Iterator[None]:
        """While the agent itself allocates: runs that overlap it are left out of the retained figures."""
        with self._lock:
            self._work += 1
            self._working += 1
        try:
            yield
        finally:
            with self._lock:
                self._working -= 1

    @property
    def idle(self) -> bool:
        return self._running == 0

    # --- parts ------------------------------------------------------------------------------------------------------

    def _row_of(self, name: str, request: Any) -> tuple[TaskKey, Row]:
        delivery = (request or {}).get("delivery_info") or {}
        key = (name, short_name(delivery.get("routing_key") or ""))
        row = self.rows.get(key)
        if row is None:
            if len(self.rows) >= self._max_tasks and key != tally.OTHER:
                self.tasks_folded += 1
                key = tally.OTHER
            row = self.rows.setdefault(key, tally.new_row())
        return key, row

    def _take_stride(self) -> int:
        """How many runs this one stands for: the stride in every stride-th run, else 0."""
        self._until_read -= 1
        if self._until_read > 0:
            return 0
        self._until_read = self._stride
        return self._stride

    def _learn_stride(self, seconds: float) -> None:
        """``seconds`` is what the closing readings of live memory took; the opening ones take as long.

        Slow to rise and quick to fall: on a crowded machine a reading is now and then interrupted, which says nothing of its cost.
        """
        self._cost = min(2 * seconds, 1.25 * max(self._cost, 1e-6))
        self._stride = max(1, min(MAX_STRIDE, int(self._cost / self._affordable_seconds)))

    def _reset_peak(self) -> bool:
        """Starts a new high-water mark for this run.

        The pool recycles a child by the same mark (``worker_max_memory_per_child`` compares it after each run). Once it is above
        that limit it is left alone, so that the pool sees it: the agent never changes when a child is recycled.
        """
        limit = self._peak_limit_bytes
        if limit is not None and self._readings.peak() > limit:
            return False
        return self._readings.reset_peak()

    def _add(self, run: Run, answer: Any, error: BaseException | None) -> int:
        outcome = outcome_of(answer, error)
        run.row[outcome] += 1
        if outcome == SUCCEEDED:
            tally.observe_runtime(run.row, answer.runtime)
        elif outcome in (FAILED, ABORTED):
            self._count_exception(run.key, error or answer.info.retval)
        return outcome

    def _count_exception(self, key: TaskKey, error: object) -> None:
        counts = self.exceptions.setdefault(key, {})
        # By bytes: all names of a task type go into one record of the pipe.
        name = type(error).__name__.encode("utf-8", "replace")[:60].decode("utf-8", "ignore")
        if name not in counts and len(counts) >= MAX_EXCEPTIONS:
            name = OTHER_EXCEPTIONS
        counts[name] = counts.get(name, 0) + 1

    def _add_memory(self, run: Run, rss: int | None) -> None:
        if run.rss is None or rss is None:
            return
        tally.observe_delta(run.row, rss - run.rss)
        if run.peak_reset:
            tally.observe_peak(run.row, max(0, self._readings.peak() - run.rss))

    def _add_retained(self, run: Run, answer: Any, blocks: int, native: int | None) -> None:
        if run.row[SUCCEEDED] == 1:
            return  # the first run, see above
        in_blocks, in_native = text_size(answer)
        row = run.row
        row[tally.RETAINED_RUNS] += run.stride
        row[tally.RETAINED_BLOCKS] += run.stride * (blocks - run.blocks - in_blocks - self._bias_blocks)
        if native is not None and run.native is not None:
            row[tally.RETAINED_NATIVE] += run.stride * (native - run.native - in_native - self._bias_native)

    def _calibrate(self) -> None:
        """Measures what a run of nothing reads as, with the very code that measures real runs."""
        on_open, on_close, self._on_open, self._on_close = self._on_open, self._on_close, None, None
        trace = measured(self, "", lambda *_: trace_ok_t(None, None, time.perf_counter(), repr(time.time())))
        row = self.rows[("", "")] = tally.new_row()
        samples = []
        for _ in range(CALIBRATION_RUNS):
            before = row[:]
            self._until_read = 1
            trace("", (), {}, None)
            runs = row[tally.RETAINED_RUNS] - before[tally.RETAINED_RUNS]
            if runs:
                samples.append([(row[each] - before[each]) / runs for each in (tally.RETAINED_BLOCKS, tally.RETAINED_NATIVE)])
        if samples:
            self._bias_blocks, self._bias_native = (statistics.median(values) for values in zip(*samples, strict=True))
        self.rows.clear()
        self._until_read = 1
        self.runs, self.overhead_seconds = 0, 0.0
        self._on_open, self._on_close = on_open, on_close


def outcome_of(answer: Any, error: BaseException | None) -> int:
    """Index into ``OUTCOMES``. A run without runtime did not happen: Celery found a redelivered task done already."""
    if error is not None:
        return ABORTED
    if answer.info is not None:
        return OUTCOME_OF_STATE.get(answer.info.state, FAILED)
    return SUCCEEDED if answer.runtime is not None else OUTCOME_OF_STATE["IGNORED"]


def text_references(answer: Any) -> int:
    return sys.getrefcount(answer.retstr)


#: Of a text that only the answer holds. ``'0'`` or ``'True'`` are Python's own, made long before the run.
FRESH_TEXT_REFERENCES = text_references(trace_ok_t(None, None, 0.0, repr(time.time())))


def text_size(answer: Any) -> tuple[int, int]:
    """Blocks and native bytes of the answer's own ``repr``, which lives across the closing reading.

    Up to 512 bytes Python's allocator serves it as one block; above, glibc's does, in chunks of 16 bytes with 8 of overhead.
    """
    if text_references(answer) > FRESH_TEXT_REFERENCES:
        return 0, 0
    size = sys.getsizeof(answer.retstr)
    return (1, 0) if size <= 512 else (0, (size + 8 + 15) & ~15)


def measured(meter: Meter, name: str, trace: Trace) -> Trace:
    """The task's tracer with readings around it: same arguments, same answer (without the value of a successful run)."""

    def measured_trace(uuid: Any, args: Any, kwargs: Any, request: Any = None) -> Any:
        run = meter.open(name, request)
        try:
            answer = trace(uuid, args, kwargs, request)
        except BaseException as error:
            meter.close(run, None, error)
            raise
        if run is not None and answer.info is None:
            answer = trace_ok_t(None, None, answer.runtime, answer.retstr)
        meter.close(run, answer)
        return answer

    return measured_trace


MEASURED_CODE = measured(None, "", len).__code__  # type: ignore[arg-type]  # only the code object is wanted
