"""``coverage`` started by a task: within its run, and over two."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import coverage

from tests.differential.behaviour import Observation, Run, behaviour
from tests.differential.behaviours.tools import fibonacci

FILE = sys.modules[fibonacci.__module__].__file__


def begun() -> Any:
    measuring = coverage.Coverage(data_file=None, include=[FILE], config_file=False)
    measuring.start()
    return measuring


def lines_that_ran(measuring: Any) -> Observation:
    """And whether it complains, as it does where its tracer was replaced."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        measuring.stop()
        lines = sorted(measuring.get_data().lines(FILE) or ())
    said = sorted(str(each.message) for each in complaints)
    return {"lines": lines, "complaints": said, "after": sys.gettrace() is None}


@behaviour()
def within_a_run(run: Run) -> Observation:
    measuring = begun()
    answer = fibonacci(5)
    return {"answer": answer, **lines_that_ran(measuring)}


@behaviour(spans=True)
def over_two_runs(run: Run) -> Observation:
    if run.first:
        run.memory["measuring"] = begun()
        return {"answer": fibonacci(1)}
    answer = fibonacci(5)
    return {"answer": answer, **lines_that_ran(run.memory.pop("measuring"))}
