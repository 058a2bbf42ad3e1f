"""Lines that make a figure rise, told by following one run."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery_memory_exporter.agent.audit.lines import LineWatch, without_cancelled
from celery_memory_exporter.agent.stats.readings import Readings

FIGURE = [0.0]
KEPT: list[Any] = []


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """Without the tracer of a debugger or coverage tool, which each test would rightly give way
    to."""
    before = sys.gettrace()
    sys.settrace(None)
    FIGURE[0] = 0.0
    yield
    KEPT.clear()
    sys.settrace(before)


def follow(body: Callable[[], object], **options: Any) -> LineWatch:
    watch = LineWatch({"figure": lambda: FIGURE[0], "unknown": lambda: None}, **options)
    assert watch.start()
    try:
        body()
    finally:
        watch.stop()
    return watch


def tops(
    watch: LineWatch, body: Callable[..., object], name: str = "figure"
) -> list[tuple[int, float]]:
    """As line numbers within ``body``, whose ``def`` is line 0."""
    first = body.__code__.co_firstlineno
    return [(int(site.rpartition(":")[2]) - first, growth) for site, growth in watch.top(name)]


def grow(size: float) -> None:
    FIGURE[0] += size


# --- real figures -------------------------------------------------------------------------------


def test_native_memory_that_is_kept_names_its_line() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    readings = Readings()
    if readings.native_live() is None:
        pytest.skip("no mallinfo2 here: musl, an old glibc, or another allocator")

    def leak() -> None:
        passing = libc.malloc(50_000)
        KEPT.append(libc.malloc(30_000))
        libc.free(passing)

    watch = LineWatch({"native": readings.native_live})
    assert watch.start()
    leak()
    watch.stop()
    (line, growth), *others = tops(watch, leak, "native")
    assert line == 2
    assert 30_000 <= growth < 32_000
    assert all(line != 1 for line, _ in others)
    libc.free(KEPT[0])


def test_a_descriptor_that_is_kept_names_its_line() -> None:
    def leak() -> None:
        with open(os.devnull) as closed:
            closed.read()
        KEPT.append(open(os.devnull))  # noqa: SIM115

    watch = LineWatch({"descriptors": lambda: len(os.listdir("/proc/self/fd"))})
    assert watch.start()
    leak()
    watch.stop()
    assert tops(watch, leak, "descriptors") == [(3, 1.0)]
    KEPT[0].close()


# --- whose a change is --------------------------------------------------------------------------


def test_a_nested_functions_line_is_charged_and_not_its_callers() -> None:
    def outer() -> None:
        grow(5)

    assert tops(follow(outer), grow) == [(1, 5.0)]


def test_after_a_return_the_callers_line_goes_on() -> None:
    def outer() -> None:
        _ = (grow(5), FIGURE.__setitem__(0, FIGURE[0] + 2))

    watch = follow(outer)
    assert tops(watch, grow) == [
        (1, 5.0),
        (outer.__code__.co_firstlineno + 1 - grow.__code__.co_firstlineno, 2.0),
    ]


def test_a_librarys_growth_is_the_calling_lines() -> None:
    def call() -> None:
        KEPT.clear()
        threading.Timer(0, FIGURE.__setitem__, (0, 7.0)).run()

    assert tops(follow(call), call) == [(2, 7.0)]


def test_an_application_function_called_by_a_library_is_charged() -> None:
    def key(value: int) -> int:
        FIGURE[0] += value
        return value

    assert tops(follow(lambda: sorted([1, 2, 3], key=key)), key) == [(1, 6.0)]


def test_exceptions_leave_the_lines_right() -> None:
    def fail() -> None:
        FIGURE[0] += 4
        raise ValueError

    def catch() -> None:
        try:
            fail()
        except ValueError:
            FIGURE[0] += 2

    watch = follow(catch)
    assert tops(watch, fail) == [
        (1, 4.0),
        (catch.__code__.co_firstlineno + 4 - fail.__code__.co_firstlineno, 2.0),
    ]


def test_an_exception_that_ends_the_run_ends_nothing_else() -> None:
    def fail() -> None:
        FIGURE[0] += 4
        raise ValueError

    watch = LineWatch({"figure": lambda: FIGURE[0]})
    assert watch.start()
    with pytest.raises(ValueError):  # noqa: PT011 - our own
        fail()
    watch.stop()
    assert tops(watch, fail) == [(1, 4.0)]
    assert watch.complete


def test_generators_are_followed_at_each_step() -> None:
    def steps() -> Iterator[None]:
        FIGURE[0] += 1
        yield
        FIGURE[0] += 2

    assert tops(follow(lambda: list(steps())), steps) == [(3, 2.0), (1, 1.0)]


# --- what came and went -------------------------------------------------------------------------


def test_what_another_line_frees_is_no_growth() -> None:
    def run() -> None:
        FIGURE[0] += 100
        FIGURE[0] += 7
        FIGURE[0] -= 100

    assert tops(follow(run), run) == [(2, 7.0)]


def test_what_ends_with_the_run_is_no_growth() -> None:
    class Buffer:
        def __init__(self) -> None:
            FIGURE[0] += 100
            weakref.finalize(self, FIGURE.__setitem__, 0, 3.0)

    def run() -> None:
        buffer = Buffer()
        FIGURE[0] += 3
        assert buffer

    watch = follow(run)
    assert tops(watch, run) == [(2, 3.0)]


def test_a_run_that_kept_nothing_names_no_line() -> None:
    def run() -> None:
        FIGURE[0] += 60
        FIGURE[0] += 40
        FIGURE[0] -= 100

    assert follow(run).top("figure") == []


def test_a_line_is_given_no_more_than_the_run_kept() -> None:
    def run() -> None:
        FIGURE[0] += 100
        FIGURE[0] -= 60
        FIGURE[0] += 10

    assert tops(follow(run), run) == [(3, 10.0), (1, 50.0)]


def test_each_fall_cancels_one_rise() -> None:
    assert without_cancelled({("f", 1): 10.0, ("f", 2): 10.0, ("f", 3): -10.0}) == {("f", 2): 10.0}


def test_at_most_five_lines_the_greatest_first() -> None:
    def run() -> None:
        FIGURE[0] += 1
        FIGURE[0] += 2
        FIGURE[0] += 3
        FIGURE[0] += 4
        FIGURE[0] += 5
        FIGURE[0] += 6

    assert tops(follow(run), run) == [(6, 6.0), (5, 5.0), (4, 4.0), (3, 3.0), (2, 2.0)]


def test_a_figure_that_cannot_be_read_names_no_line() -> None:
    watch = follow(lambda: grow(1))
    assert (watch.top("unknown"), watch.top("never heard of")) == ([], [])


# --- manners ------------------------------------------------------------------------------------


def test_an_existing_tracer_is_left_alone() -> None:
    def tracer(frame: FrameType, event: str, arg: object) -> None:
        pass

    watch = LineWatch({"figure": lambda: FIGURE[0]})
    sys.settrace(tracer)
    try:
        assert not watch.start()
        watch.stop()
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(None)


def test_a_tracer_that_was_set_meanwhile_is_left_alone() -> None:
    seen = []

    def tracer(frame: FrameType, event: str, arg: object) -> None:
        seen.append(event)

    def run() -> None:
        sys.settrace(tracer)
        FIGURE[0] += 5

    watch = follow(run)
    try:
        assert sys.gettrace() is tracer
        assert not watch.complete
    finally:
        sys.settrace(None)


def test_stopping_restores_and_may_be_repeated() -> None:
    watch = follow(lambda: grow(1))
    assert sys.gettrace() is None
    watch.stop()
    assert watch.complete
    assert not watch.start(), "one watch follows one run"


def test_a_watch_that_never_started_may_be_stopped() -> None:
    watch = LineWatch({"figure": lambda: FIGURE[0]})
    watch.stop()
    assert (watch.top("figure"), watch.complete) == ([], False)


def test_stopped_from_another_thread_it_forgets_itself() -> None:
    watch = LineWatch({"figure": lambda: FIGURE[0]})
    assert watch.start()
    helper = threading.Thread(target=watch.stop)
    helper.start()
    helper.join()
    grow(1)
    assert sys.gettrace() is None
    assert not watch.complete


def test_after_so_many_events_it_stops_by_itself() -> None:
    left: list[bool] = []

    def run() -> None:
        FIGURE[0] += 1
        for _ in range(100):
            left[:] = [sys.gettrace() is None]

    watch = follow(run, max_events=10)
    assert left == [True]
    assert not watch.complete
    assert tops(watch, run) == [(1, 1.0)]


def test_after_so_much_time_of_its_own_it_stops_by_itself() -> None:
    watch = follow(lambda: grow(1), seconds=0.0)
    assert not watch.complete


def test_calls_within_libraries_use_up_its_time() -> None:
    encoder = json.JSONEncoder(indent=1)  # with an indent it runs in Python

    def run() -> None:
        list(map(encoder.encode, [[1]] * 10_000))

    assert not follow(run, seconds=0.005).complete


def test_a_reading_that_fails_ends_the_watch_and_not_the_run() -> None:
    readings = iter([0.0, 1.0, 1.0])
    watch = LineWatch({"figure": lambda: next(readings)})
    assert watch.start()
    grow(1)
    assert sys.gettrace() is None
    watch.stop()
    assert not watch.complete


def test_a_soft_time_limit_within_a_reading_is_the_tasks() -> None:
    armed = []

    def reading() -> float:
        if armed:
            raise SoftTimeLimitExceeded
        return 0.0

    watch = LineWatch({"figure": reading})
    assert watch.start()
    armed.append(True)
    with pytest.raises(SoftTimeLimitExceeded):
        grow(1)
    armed.clear()
    assert sys.gettrace() is None
    watch.stop()


def test_nothing_of_the_run_is_kept_alive() -> None:
    class Doomed:
        pass

    ghosts: list[weakref.ref[Any]] = []

    def run() -> None:
        doomed = Doomed()
        ghosts.append(weakref.ref(doomed))
        FIGURE[0] += 1

    watch = follow(run)
    assert ghosts[0]() is None
    ghosts.append(weakref.ref(run))
    del run
    gc.collect()
    assert ghosts[1]() is None
    assert watch.top("figure")


def test_within_a_greenlet_nothing_starts() -> None:
    greenlet = pytest.importorskip("greenlet")
    watch = LineWatch({"figure": lambda: FIGURE[0]})
    assert greenlet.greenlet(watch.start).switch() is False
    assert sys.gettrace() is None
