"""A task's tracer with readings around it."""

from __future__ import annotations

import functools
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from celery_memory_exporter.agent.meter.run import Run
from celery_memory_exporter.agent.meter.tracer import measured, wrap_tasks


class Noting:
    """A meter that notes what is asked of it, and fails where it is told to."""

    def __init__(self, fails_in: str = "", error: BaseException | None = None) -> None:
        self.asked: list[Any] = []
        self.runs: set[Run] = set()
        self._fails_in = fails_in
        self._error = error or SoftTimeLimitExceeded()

    def _ask(self, run: Run, *what: Any) -> None:
        self.runs.add(run)
        self.asked.append(what)
        if what[0] == self._fails_in:
            raise self._error

    def open(self, run: Run, name: str, request: Any) -> None:
        run.active = True
        self._ask(run, "open", name, request)

    def settle(self, run: Run, answer: Any) -> Any:
        run.stashed = True
        self._ask(run, "settle", answer)
        return f"settled {answer}"

    def close(self, run: Run, answer: Any, *, aborted: bool = False) -> None:
        self._ask(run, "close", answer, aborted)

    def leave(self, run: Run) -> None:
        self._ask(run, "leave")

    def restore(self, answer: Any) -> Any:
        self.asked.append(("restore", answer))
        return f"restored {answer}"


def traced(*given: Any) -> str:
    return f"answer to {given}"


def test_the_readings_are_taken_around_the_run_in_their_order() -> None:
    meter = Noting()
    answer = measured(meter, "shop.t", traced)("uuid", (1,), {"a": 2}, {"id": 3})
    given = "answer to ('uuid', (1,), {'a': 2}, {'id': 3})"
    assert meter.asked == [
        ("open", "shop.t", {"id": 3}),
        ("settle", given),
        ("close", f"settled {given}", False),
        ("leave",),
        ("restore", f"settled {given}"),
    ]
    assert answer == f"restored settled {given}"
    assert len(meter.runs) == 1


def test_each_call_is_a_run_of_its_own() -> None:
    meter = Noting()
    trace = measured(meter, "t", traced)
    for _ in range(3):
        trace("uuid", (), {})
    assert len(meter.runs) == 3


@pytest.mark.parametrize(
    "error", [ValueError, SystemExit, KeyboardInterrupt, SoftTimeLimitExceeded]
)
def test_what_a_run_raises_passes_and_the_run_is_closed(error: type[BaseException]) -> None:
    def fails(*_: Any) -> Any:
        raise error

    meter = Noting()
    with pytest.raises(error):
        measured(meter, "t", fails)("uuid", (), {}, None)
    assert meter.asked == [("open", "t", None), ("close", None, True), ("leave",)]


@pytest.mark.parametrize("place", ["open", "settle", "close"])
def test_a_soft_time_limit_in_the_readings_passes_and_the_run_is_left(place: str) -> None:
    meter = Noting(fails_in=place)
    with pytest.raises(SoftTimeLimitExceeded):
        measured(meter, "t", traced)("uuid", (), {}, None)
    assert [what[0] for what in meter.asked][-2:] == [place, "leave"]


def test_a_value_is_dropped_before_the_closing_readings() -> None:
    """Nothing of the tracer's holds what the meter has settled away."""

    class Value:
        pass

    class Dropping(Noting):
        def settle(self, run: Run, answer: Any) -> Any:
            return None

        def close(self, run: Run, answer: Any, *, aborted: bool = False) -> None:
            self.asked = [ghost()]

        def leave(self, run: Run) -> None:
            pass

    meter = Dropping()
    value = Value()
    ghost = weakref.ref(value)
    box = [value]
    del value
    measured(meter, "t", lambda *_: box.pop())("uuid", (), {}, None)
    assert meter.asked[0] is None, "as it was at the closing readings"


def test_a_task_is_measured_once_however_often_it_is_wrapped() -> None:
    meter = Noting()
    task = SimpleNamespace(__trace__=traced)
    for _ in range(3):
        wrap_tasks(meter, {"shop.t": task})
    task.__trace__("uuid", (), {}, None)
    assert [what[0] for what in meter.asked].count("open") == 1
    assert meter.asked[0][1] == "shop.t"


def test_what_wraps_a_measured_tracer_is_not_measured_again() -> None:
    meter = Noting()
    task = SimpleNamespace(__trace__=traced)
    wrap_tasks(meter, {"t": task})
    inner = task.__trace__

    @functools.wraps(inner)
    def of_another_tool(*args: Any) -> Any:
        return inner(*args)

    task.__trace__ = of_another_tool
    wrap_tasks(meter, {"t": task})
    assert task.__trace__ is of_another_tool


def test_a_tracer_that_celery_builds_anew_is_measured() -> None:
    meter = Noting()
    task = SimpleNamespace(__trace__=traced)
    wrap_tasks(meter, {"t": task})
    task.__trace__ = traced
    wrap_tasks(meter, {"t": task})
    assert task.__trace__ is not traced


def test_a_task_without_a_tracer_stays_without() -> None:
    task = SimpleNamespace(__trace__=None)
    wrap_tasks(Noting(), {"never traced": task, "none": SimpleNamespace()})
    assert task.__trace__ is None


def test_a_name_is_as_long_as_it_is_shown() -> None:
    meter = Noting()
    task = SimpleNamespace(__trace__=traced)
    wrap_tasks(meter, {"n" * 500: task})
    task.__trace__("uuid", (), {}, None)
    assert meter.asked[0][1] == "n" * 120
