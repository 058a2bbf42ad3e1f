"""How much time the agent may spend on what it does only now and then, such as audits.

What was spent stands in an account, which the process leaves to its successor in the pool: a child
that is recycled after a hundred runs would else have a credit of its own each time.
"""

from __future__ import annotations

import math
from array import array
from enum import IntEnum
from typing import TypeAlias


class Entry(IntEnum):
    """What stands where in an account, in seconds: how long processes before this one have been
    busy, and what they and this one spent. And what they found out that took them time: blocks and
    native bytes that a confirming audit reads more than a plain one, and whether that is known."""

    BUSY = 0
    SAMPLES = 1
    AUDITS = 2
    CONFIRMATIONS = 3
    DEEP_AUDITS = 4
    BIAS_BLOCKS = 5
    BIAS_NATIVE = 6
    BIAS_KNOWN = 7


#: One figure for each entry; in memory that the successor reads as well, or of the process's own.
Account: TypeAlias = "array[float] | memoryview[float]"


def new_account() -> Account:
    """Of a process that has neither predecessor nor successor."""
    return array("d", bytes(8 * len(Entry)))


class Budget:
    """``share`` of the seconds that processes are busy, and ``credit`` seconds once, so that a
    young worker has answers soon. ``entry`` of the account tells what was spent."""

    def __init__(
        self, share: float, credit: float, account: Account | None = None, entry: int = 0
    ) -> None:
        self._share = share
        self._credit = credit
        self._account = new_account() if account is None else account
        self._entry = int(entry)

    @property
    def spent(self) -> float:
        return self._account[self._entry]

    def spend(self, seconds: float) -> None:
        self._account[self._entry] += seconds

    def left(self, busy_seconds: float) -> float:
        """Seconds; below zero after something that took longer than was left."""
        return self._credit + self._share * busy_seconds - self._account[self._entry]

    def wait(self, busy_seconds: float) -> float:
        """Busy seconds until something is left."""
        left = self.left(busy_seconds)
        return 0.0 if left > 0 else -left / self._share if self._share else math.inf
