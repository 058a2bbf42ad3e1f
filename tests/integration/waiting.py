"""Waiting for what has to come, on a machine that others use too.

There is one patience for all waits: a condition that holds ends its wait at once, and where the
machine has eight times more to do than it can, everything takes ten times as long or more. Nothing
is asserted by how soon it comes, save where a test says so.
"""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds. Also of sockets, browsers and programs that are waited for; pytest's own ``timeout`` in
#: pyproject.toml has to be longer.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "600"))
POLL_SECONDS = 0.2
#: What a server says while it comes up, is busy, or goes away.
NO_ANSWER = (OSError, http.client.HTTPException)


def wait_for(
    look: Callable[[], T],
    what: str,
    holds: Callable[[T], object] = bool,
    *,
    patience: float = PATIENCE,
) -> T:
    """What ``look`` sees, as soon as it holds: as soon as there is anything, unless ``holds`` says
    otherwise.

    Raises ``AssertionError`` with what was seen last. That a server does not answer does not hold.
    """
    deadline = time.monotonic() + patience
    while True:
        seen: object
        try:
            seen = answer = look()
            if holds(answer):
                return answer
        except NO_ANSWER as error:
            seen = error
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:.0f} s in vain for {what}; seen last: {seen!r}")
        time.sleep(POLL_SECONDS)


def equals(wanted: Any) -> Callable[[Any], bool]:
    """For ``wait_for``: it is exactly that."""
    return lambda seen: bool(seen == wanted)


def at_least(wanted: float) -> Callable[[float | None], bool]:
    """For ``wait_for``: it is there, and no less."""
    return lambda seen: seen is not None and seen >= wanted


def contains(wanted: str) -> Callable[[str], bool]:
    """For ``wait_for``: a text has it."""
    return lambda seen: wanted in seen


def nothing(seen: object) -> bool:
    """For ``wait_for``: what is still missing is nothing more."""
    return not seen
