"""Lines that make a figure rise, told by following one run."""

from __future__ import annotations

import ctypes
import os
import statistics
import threading
import weakref
from collections.abc import Iterator

import pytest

from celery_memory_exporter.agent.audit.lines import LineWatch, without_cancelled
from celery_memory_exporter.agent.stats.readings import Readings
from tests.agent.audit.watching import FIGURE, KEPT, follow, rise, tops

pytestmark = pytest.mark.usefixtures("no_other_tracer")


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

    amounts: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for _ in range(9):  # in some, a thread of the test runner has its share
        watch = LineWatch({"native": readings.native_live})
        assert watch.start()
        leak()
        watch.stop()
        found = dict(tops(watch, leak, "native"))
        for line, seen in amounts.items():
            seen.append(found.get(line, 0.0))
        libc.free(KEPT.pop())
    middle = {line: statistics.median(seen) for line, seen in amounts.items()}
    assert 30_000 <= middle.pop(2) < 32_000
    assert max(middle.values()) < 1_000


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
        rise(5)

    assert tops(follow(outer), rise) == [(1, 5.0)]


def test_after_a_return_the_callers_line_goes_on() -> None:
    def outer() -> None:
        _ = (rise(5), FIGURE.__setitem__(0, FIGURE[0] + 2))

    watch = follow(outer)
    assert tops(watch, rise) == [
        (1, 5.0),
        (outer.__code__.co_firstlineno + 1 - rise.__code__.co_firstlineno, 2.0),
    ]


def test_a_librarys_rise_is_the_calling_lines() -> None:
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


def test_generators_are_followed_at_each_step() -> None:
    def steps() -> Iterator[None]:
        FIGURE[0] += 1
        yield
        FIGURE[0] += 2

    assert tops(follow(lambda: list(steps())), steps) == [(3, 2.0), (1, 1.0)]


# --- what came and went -------------------------------------------------------------------------


def test_what_another_line_frees_is_no_rise() -> None:
    def run() -> None:
        FIGURE[0] += 100
        FIGURE[0] += 7
        FIGURE[0] -= 100

    assert tops(follow(run), run) == [(2, 7.0)]


def test_what_ends_with_the_run_is_no_rise() -> None:
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
    watch = follow(lambda: rise(1))
    assert (watch.top("unknown"), watch.top("never heard of")) == ([], [])
