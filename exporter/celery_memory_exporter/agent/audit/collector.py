"""The garbage collector around one run: the run's objects apart from all that is older.

Before the run a young collection makes all objects old. After it another one frees the run's
garbage, and what outlived the run is the middle generation. Neither looks at the old generation, so
both cost what the run made, on a heap of any size.

* The application sees its heap as it is: nothing is frozen, and its collector goes on.
* What the run held at an automatic young collection is in the middle generation, also what became
  garbage later: there ``free_promoted`` frees it, and what outlived the run is no longer apart.
* A run in which the middle generation was collected as well, automatically or by the application,
  cannot be told apart from what is older, and says nothing.
* Runs of a type that allocate so much are opened ``quiet``: with thresholds by which young
  collections run by themselves only once there are very many objects, and no others do. That shows
  in ``gc.get_threshold()`` within the run, and nowhere else.
* What the application does to its collector in the run stands afterwards, and the run says nothing.
* Where the application has switched its collector off, nothing is collected.

Facts: ``Modules/gcmodule.c`` (CPython 3.10 to 3.12), ``Python/gc.c`` (3.13). From 3.14 on the old
generation is looked at in portions, with each young collection: there automatic collection pauses
for the run.
"""

from __future__ import annotations

import gc
import sys
from array import array

from celery_memory_exporter.agent.interruptions import collect

YOUNG, MIDDLE, OLD = 0, 1, 2
INCREMENTAL = sys.version_info >= (3, 14)
#: No count of young collections comes this far: the largest ``int`` in C.
NEVER = 2**31 - 1
#: Objects in a quiet run until a young collection: some megabytes, if all of them were garbage.
QUIET_OBJECTS = 20_000

#: What the application may do to its collector, in an array: numbers above 256 are objects, which
#: would show in the blocks that an audit counts.
STATE = DEBUG, ENABLED, FIRST, SECOND, THIRD, COLLECTIONS, PROMOTIONS = range(7)
#: What a run is disturbed by, by the figure that tells: the gravest first. Promotions are none.
DISTURBANCES = ("debug", "switched", "threshold", "threshold", "threshold", "collected")
FROZEN = "frozen"


class Collector:
    """For one run at a time: ``open``, the run, ``close``; or ``abandon``, whatever happened."""

    def __init__(self) -> None:
        self._before, self._opened, self._now = (array("q", bytes(8 * len(STATE))) for _ in "012")
        self._open = False
        #: Whether the run that was closed last may have garbage in the middle generation.
        self.promoted = False

    def open(self, *, quiet: bool = False, full: bool = False) -> None:
        """Makes everything old, unless the application has switched its collector off. ``full``:
        and frees all garbage first."""
        _read(self._before)
        if self._before[ENABLED]:
            if full:
                collect(OLD)
            collect(MIDDLE)  # counted until the next full collection or freeze, see below
            self._open = True
            if INCREMENTAL:
                gc.disable()
            elif quiet:
                first = self._before[FIRST]
                gc.set_threshold(max(first, QUIET_OBJECTS) if first else 0, NEVER, NEVER)
        _read(self._opened)

    def close(self) -> tuple[str | None, int]:
        """Frees the run's garbage: what disturbed the run, if anything did, and how many objects
        were garbage. What outlived the run is the middle generation until the next collection."""
        collects = self._open
        disturbance = self._disturbance()
        self.promoted = collects and self._now[PROMOTIONS] != self._opened[PROMOTIONS]
        self.abandon()
        return disturbance, gc.collect(YOUNG) if collects and disturbance is None else 0

    @staticmethod
    def free_promoted() -> int:
        """Frees what became garbage in the run after a young collection in it (``promoted``), after
        ``close``: how many objects that was. What outlived the run is no longer apart."""
        return gc.collect(MIDDLE)

    @staticmethod
    def free_all() -> int:
        """Frees old garbage as well, after ``close``: how many objects that was. It takes some
        0.2 s at a million objects, and what outlived the run is no longer apart."""
        return gc.collect(OLD)

    def abandon(self) -> None:
        """The collector is as it was, but for what the application changed meanwhile."""
        if not self._open:
            return
        self._open = False
        _read(self._now)
        before, opened, now = self._before, self._opened, self._now
        if now[ENABLED] == opened[ENABLED] != before[ENABLED]:
            gc.enable()
        if now[FIRST:COLLECTIONS] == opened[FIRST:COLLECTIONS] != before[FIRST:COLLECTIONS]:
            gc.set_threshold(*before[FIRST:COLLECTIONS])

    def _disturbance(self) -> str | None:
        _read(self._now)
        for figure, disturbance in enumerate(DISTURBANCES):
            if self._now[figure] != self._opened[figure]:
                return disturbance
        # The collection that opened the run is counted, until the next one of all or a freeze.
        return FROZEN if self._open and gc.get_count()[2] == 0 else None


def _read(state: array[int]) -> None:
    state[DEBUG], state[ENABLED] = gc.get_debug(), gc.isenabled()
    state[FIRST], state[SECOND], state[THIRD] = gc.get_threshold()
    young, *older = gc.get_stats()
    state[COLLECTIONS] = sum(each["collections"] for each in older)
    state[PROMOTIONS] = young["collections"]
