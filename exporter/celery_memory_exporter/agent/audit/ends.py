"""What is read at both ends of an audited run, in arrays: an object that holds a number would count
as left behind.

The heap is read with full free lists and caches, so that what waits in them to be used again does
not show.
"""

from __future__ import annotations

import math
import sys
import time
from array import array

from celery_memory_exporter.agent.audit.finding import Finding
from celery_memory_exporter.agent.stats import free_lists
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

#: For threads that are about to go: a millisecond in all, where there are more than before.
THREAD_LOOKS, THREAD_PAUSE_SECONDS = 5, 0.0002
UNKNOWN = math.nan
#: Places in the arrays.
NATIVE, BLOCKS, FDS, THREADS, CHILDREN, SHARED = READINGS = range(6)
#: The interpreter's method cache keeps up to 4,096 names that attributes were looked up by, such as
#: each text that ``pickle`` makes for a class: they would look like a block or three that each run
#: leaves behind. Its name changed with Python 3.13.
clear_type_cache = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache


class Ends:
    """The readings of one audit at a time: first the kernel's and then the heap's before the run,
    the heap's and then the kernel's after it."""

    def __init__(self, readings: Readings) -> None:
        self._readings = readings
        self._before = array("d", bytes(8 * len(READINGS)))
        self._after = array("d", bytes(8 * len(READINGS)))
        #: Of the same readings, what the collector freed after the run: native bytes and blocks.
        self._garbage = array("d", bytes(8 * len((NATIVE, BLOCKS))))
        #: The heap is read with full lists of free tuples of these sizes.
        self.tuples: frozenset[int] = frozenset()

    def open(self) -> None:
        """Of the kernel: what is read of the heap comes last."""
        clear_type_cache()
        self._read_kernel(self._before)

    def open_heap(self) -> None:
        self._read_heap(self._before)

    def close_heap(self) -> None:
        """With the run's garbage, which is to be freed next."""
        clear_type_cache()
        self._read_heap(self._after)
        self._garbage[NATIVE] = self._garbage[BLOCKS] = 0.0

    def close_without_garbage(self) -> None:
        """Again, after garbage was freed, or more of it."""
        after, garbage = self._after, self._garbage
        garbage[NATIVE] += after[NATIVE]
        garbage[BLOCKS] += after[BLOCKS]
        clear_type_cache()
        self._read_heap(after)
        garbage[NATIVE] -= after[NATIVE]
        garbage[BLOCKS] -= after[BLOCKS]

    def close(self) -> None:
        """Of the kernel. A thread that ended and was joined is listed for an instant longer."""
        self._read_kernel(self._after)
        for _ in range(THREAD_LOOKS):
            if self._after[THREADS] <= self._before[THREADS]:
                return
            time.sleep(THREAD_PAUSE_SECONDS)
            self._after[THREADS] = self._readings.threads()

    def close_confirmed(self, native: float, blocks: float) -> None:
        """Once more, after all garbage was freed; ``native`` bytes and ``blocks`` are what such a
        reading has too much."""
        clear_type_cache()
        self._read_heap(self._after)
        self._after[NATIVE] -= native
        self._after[BLOCKS] -= blocks

    def blocks(self) -> float:
        """Those that seem to be left behind."""
        return self._after[BLOCKS] - self._before[BLOCKS]

    def left(self) -> float:
        """What seems to be left behind: blocks, and of native bytes as many as they are worth."""
        native = _known(self._after[NATIVE] - self._before[NATIVE])
        return self.blocks() + native / MEAN_BLOCK_BYTES

    def finding(self, types: dict[str, int]) -> Finding:
        """What the run left behind, with its survivors by type."""
        native, blocks, fds, threads, children, shared = (
            after - before for before, after in zip(self._before, self._after, strict=True)
        )
        return Finding(
            native=_known(native),
            blocks=blocks,
            fds=fds,
            threads=threads,
            children=children,
            shared=shared,
            garbage_blocks=self._garbage[BLOCKS],
            garbage_native=_known(self._garbage[NATIVE]),
            types=types,
        )

    def _read_heap(self, reading: array[float]) -> None:
        free_lists.fill(self.tuples)  # first, since what it makes has rooms from ``malloc``
        self._readings.fill_caches()
        reading[NATIVE] = self._native()
        reading[BLOCKS] = sys.getallocatedblocks()

    def _native(self) -> float:
        native = self._readings.native_live()
        return UNKNOWN if native is None else native

    def _read_kernel(self, reading: array[float]) -> None:
        readings = self._readings
        reading[FDS], reading[THREADS], reading[CHILDREN] = (
            readings.fds(),
            readings.threads(),
            readings.children(),
        )
        reading[SHARED] = readings.in_memory_files()


def _known(difference: float) -> float:
    """Nothing where either reading is unknown."""
    return 0.0 if math.isnan(difference) else difference
