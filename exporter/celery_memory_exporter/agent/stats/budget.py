"""How much time the agent may spend on what it does only now and then, such as audits."""

from __future__ import annotations

import math


class Budget:
    """``share`` of the seconds that the process is busy, and ``credit`` seconds once, so that a
    young process has answers soon."""

    def __init__(self, share: float, credit: float) -> None:
        self.spent = 0.0
        self._share = share
        self._credit = credit

    def spend(self, seconds: float) -> None:
        self.spent += seconds

    def left(self, busy_seconds: float) -> float:
        """Seconds; below zero after something that took longer than was left."""
        return self._credit + self._share * busy_seconds - self.spent

    def wait(self, busy_seconds: float) -> float:
        """Busy seconds until something is left."""
        left = self.left(busy_seconds)
        return 0.0 if left > 0 else -left / self._share if self._share else math.inf
