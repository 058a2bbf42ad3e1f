"""The tests' application with a heap of a size that the benchmark asks for, and a task that takes
some milliseconds."""

from __future__ import annotations

import os

from tests.bench.heap import OBJECTS_VARIABLE, filled
from tests.integration.tasks import app

LOOPS = 150_000

heap = filled(int(os.environ.get(OBJECTS_VARIABLE, "0")))


@app.task
def work() -> int:
    """Some 5 ms of CPU time."""
    total = 0
    for number in range(LOOPS):
        total += number
    return total
