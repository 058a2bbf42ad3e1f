"""Tools that people run beside Celery: what they capture is the same with and without the agent.

Each has a module here with ``start(tell)``, which sets the tool up as its users do, but for its
server: what it captures is told as ``Record``s, and nothing is sent anywhere. What the tools tell
of Redis is left out: which run opens a connection is chance.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable

from tests.differential.beside.records import Record, writer

#: When the tool starts: as the first thing of the application, with the agent after it; after the
#: agent was installed; in each process of the pool, with the agent after it.
BEFORE, AFTER, IN_PROCESSES = "before", "after", "in-processes"
#: By the tool: the orders that it is known to be started in.
TOOLS: dict[str, tuple[str, ...]] = {
    "coverage": (BEFORE, AFTER),
    "datadog": (BEFORE, AFTER),
    "elastic": (BEFORE, AFTER),
    "newrelic": (BEFORE, AFTER),
    "opentelemetry": (BEFORE, AFTER, IN_PROCESSES),
    "sentry": (BEFORE, AFTER),
}

Start = Callable[[Callable[[Record], None]], None]


def start_if(order: str) -> None:
    """Starts the tool that the environment names, if this is its turn."""
    tool = os.environ.get("TEST_BESIDE")
    if not tool or os.environ["TEST_BESIDE_ORDER"] != order:
        return
    start: Start = importlib.import_module(f"tests.differential.beside.{tool}").start
    start(writer(os.environ["TEST_BESIDE_TOLD"]))
