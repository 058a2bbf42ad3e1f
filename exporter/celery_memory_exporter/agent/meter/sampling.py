"""Live memory read at both ends of a run that is not audited.

A reading walks all pools of the heap (50 µs at a million objects) and takes their place in the
processor's caches, so it has a share of the process's time of its own.
"""

from __future__ import annotations

import sys
import time
from typing import TypeAlias

from celery_memory_exporter.agent.meter.run import Run
from celery_memory_exporter.agent.stats.budget import Account, Budget, Entry
from celery_memory_exporter.agent.stats.readings import Readings

#: Of the process's busy time, and seconds once.
SHARE, CREDIT_SECONDS = 0.003, 0.03

#: Live memory after a run: blocks and native bytes, the latter where they are known; and whether
#: the collector freed something meanwhile.
Sample: TypeAlias = "tuple[int, int | None, bool]"


class Sampler:
    """Reads the runs of one process, one at a time."""

    def __init__(self, readings: Readings, account: Account | None = None) -> None:
        self.budget = Budget(SHARE, CREDIT_SECONDS, account, Entry.SAMPLES)
        self._readings = readings

    def begin(self, run: Run) -> None:
        """The opening readings; the run has to follow at once."""
        run.collected = self._readings.collected()
        run.native = self._readings.native_live()
        run.blocks = sys.getallocatedblocks()

    def finish(self, run: Run) -> Sample:
        """The closing readings."""
        begun = time.thread_time()
        blocks, native = sys.getallocatedblocks(), self._readings.native_live()
        self.budget.spend(2 * (time.thread_time() - begun))  # the opening ones take as long
        return blocks, native, self._readings.collected() != run.collected
