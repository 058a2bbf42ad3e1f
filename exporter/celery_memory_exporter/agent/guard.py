"""The agent's one choke point: what it raises is counted and logged once, and never reaches the
worker.

Two kinds of exception pass: ``BaseException`` that is no ``Exception`` (the worker's own way to
stop, greenlet time-outs), and what is not the agent's own (``interruptions``).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from celery_memory_exporter.agent.interruptions import is_from_handler, let_pass

logger = logging.getLogger("celery_memory_exporter.agent")

P = ParamSpec("P")
R = TypeVar("R")


class Guard:
    """Counts the agent's own errors in this process; each place is logged the first time."""

    def __init__(self) -> None:
        self.errors = 0
        self._logged: set[str] = set()

    def note(self, place: str) -> None:
        """Counts the exception being handled."""
        self.errors += 1
        if place not in self._logged:
            self._logged.add(place)
            try:
                logger.warning(
                    "The memory agent failed in %s; tasks are not affected. Logged once.",
                    place,
                    exc_info=True,
                )
            except Exception as error:  # of the application's own log handlers
                if is_from_handler(error):
                    raise


def guarded(method: Callable[P, R]) -> Callable[P, R | None]:
    """For methods of objects that have a ``guard``: an exception is noted there and the answer is
    ``None``."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(*args, **kwargs)
        except Exception as error:
            let_pass(error)
            owner: Any = args[0]
            owner.guard.note(method.__qualname__)
            return None

    return call
