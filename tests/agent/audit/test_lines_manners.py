"""A watch over lines gives way to others, ends by itself and keeps nothing."""

from __future__ import annotations

import gc
import json
import sys
import threading
import weakref
from types import FrameType
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery_memory_exporter.agent.audit.lines import LineWatch
from tests.agent.audit.watching import FIGURE, follow, rise, tops

pytestmark = pytest.mark.usefixtures("no_other_tracer")


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

    follow(run)
    try:
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(None)


def test_stopping_restores_and_may_be_repeated() -> None:
    watch = follow(lambda: rise(1))
    assert sys.gettrace() is None
    watch.stop()
    assert not watch.start(), "one watch follows one run"


def test_a_watch_that_never_started_may_be_stopped() -> None:
    watch = LineWatch({"figure": lambda: FIGURE[0]})
    watch.stop()
    assert watch.top("figure") == []


def test_stopped_from_another_thread_it_forgets_itself() -> None:
    watch = LineWatch({"figure": lambda: FIGURE[0]})
    assert watch.start()
    helper = threading.Thread(target=watch.stop)
    helper.start()
    helper.join()
    rise(1)
    assert sys.gettrace() is None
    assert watch.top("figure") == []


def test_after_so_many_events_it_stops_by_itself() -> None:
    left: list[bool] = []

    def run() -> None:
        FIGURE[0] += 1
        for _ in range(100):
            left[:] = [sys.gettrace() is None]

    watch = follow(run, max_events=10)
    assert left == [True]
    assert tops(watch, run) == [(1, 1.0)]


def test_after_so_much_time_of_its_own_it_stops_by_itself() -> None:
    left: list[bool] = []

    def run() -> None:
        FIGURE[0] += 1
        left.append(sys.gettrace() is None)

    watch = follow(run, seconds=0.0)
    assert left == [True]
    assert watch.top("figure") == [], "what comes after is nobody's line"


def test_calls_within_libraries_use_up_its_time() -> None:
    encoder = json.JSONEncoder(indent=1)  # with an indent it runs in Python
    left: list[bool] = []

    def run() -> None:
        # In one line: before the next one the time is looked at anyway.
        _ = list(map(encoder.encode, [[1]] * 10_000)), left.append(sys.gettrace() is None)

    follow(run, seconds=0.005)
    assert left == [True]


def test_a_reading_that_fails_ends_the_watch_and_not_the_run() -> None:
    readings = iter([0.0, 1.0, 1.0])
    watch = LineWatch({"figure": lambda: next(readings)})
    assert watch.start()
    rise(1)
    assert sys.gettrace() is None
    watch.stop()


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
        rise(1)
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
