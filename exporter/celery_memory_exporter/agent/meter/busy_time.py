"""How long the process has been at work: what the agent's own share is taken of."""

from __future__ import annotations

import time

from celery_memory_exporter.agent.stats.budget import Account, Entry

#: Between two readings of the process's CPU time: each is a call into the kernel.
LOOK_SECONDS = 0.05
_BUSY = int(Entry.BUSY)


class BusyTime:
    """Of one process, on top of what its predecessors left in the account."""

    def __init__(self, account: Account) -> None:
        #: That its runs took.
        self.seconds = 0.0
        self._account = account
        self._before = account[_BUSY]
        self._cpu_seconds = self._due = 0.0

    def total(self, now: float) -> float:
        """Seconds of runs or of CPU, whichever are more, as of ``now`` or shortly before."""
        if now >= self._due:
            self._due = now + LOOK_SECONDS
            self._cpu_seconds = time.process_time()
        self._account[_BUSY] = self._before + max(self.seconds, self._cpu_seconds)
        return self._account[_BUSY]
