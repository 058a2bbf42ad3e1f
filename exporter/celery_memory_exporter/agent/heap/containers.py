"""Which long-lived container of this process grows: the holder that a leak is found in.

Walks over all modules go on in small portions of time (``walk``). They see what the garbage
collector's census cannot: dicts of strings, strings and bytearrays are not tracked. Between two
calls only addresses, numbers and module names are kept, no object: what the application drops is
freed.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import dataclass

from celery_memory_exporter.agent.heap.addresses import readable, resolve
from celery_memory_exporter.agent.heap.capacity import capacities_of
from celery_memory_exporter.agent.heap.shapes import known_shape, measure
from celery_memory_exporter.agent.heap.walk import Grown, Rank, Walk

#: The first walks look at the application's own modules only: most holders are there, and it takes
#: some milliseconds.
QUICK_WALKS = 2


@dataclass(frozen=True, slots=True)
class GrowingContainer:
    """A container that grows. ``growth``: items more than when first seen; ``capacity``: most items
    it can ever have, as far as its type or code tells."""

    path: str
    kind: str
    items: int
    growth: int
    capacity: int | None


class Probe:
    """Follows the ``size`` containers of this process that grow most. For one thread; make a new
    one after a fork."""

    def __init__(self, size: int = 20, quick_walks: int = QUICK_WALKS) -> None:
        self.walks = 0
        self._quick_walks = quick_walks
        self._size = size
        self._walk: Walk | None = None
        self._first: dict[int, int] = {}
        self._grown: dict[str, Grown] = {}
        #: By address: path and size when first seen, and what may be its capacity.
        self._followed: dict[str, tuple[str, int]] = {}
        self._capacities: dict[str, tuple[int, ...]] = {}

    def work(self, seconds: float) -> bool:
        """Goes on with the walk for about so long; true if that completed it. The next call begins
        the next one.

        By the thread's own time: on a crowded machine the walk would get nowhere by the clock's,
        and its suspect stay without a holder.
        """
        deadline = time.thread_time() + seconds
        if self._walk is None:
            last = Rank.LOGGERS if self.walks < self._quick_walks else Rank.LIBRARY
            self._walk = Walk(self._first, last)
        walk = self._walk
        try:
            while walk.step():
                if time.thread_time() >= deadline:
                    return False
        finally:
            walk.release()
        best = self._best(walk)
        for address in best:
            if address not in self._capacities:
                # In place before the search: if that fails once, it fails each time.
                self._capacities[address] = ()
                self._capacities[address] = capacities_of(address)
                if time.thread_time() >= deadline:
                    return False
        self._complete(walk, best)
        return True

    def sizes(self) -> dict[str, int]:
        """Items now by path, of the containers followed that still exist."""
        measured = (
            (path, measure(resolve(address))) for address, (path, _) in self._followed.items()
        )
        return {path: items for path, items in measured if items is not None}

    def containers(self) -> list[GrowingContainer]:
        """The containers followed that still exist, the greatest growth first."""
        growing = []
        for address, (path, first) in self._followed.items():
            found = resolve(address)
            items = measure(found)
            if items is not None:
                shape = known_shape(found)
                capacity = shape.capacity(found) if shape.capacity is not None else None
                if capacity is None:
                    numbers = self._capacities[address]
                    capacity = next((number for number in numbers if number >= items), None)
                growing.append(GrowingContainer(path, shape.kind, items, items - first, capacity))
        return sorted(growing, key=lambda container: -container.growth)

    def _best(self, walk: Walk) -> list[str]:
        """First what was followed and still grows, then what still grows, then what has grown
        most."""

        def importance(address: str) -> tuple[bool, bool, int]:
            size, first = walk.grown[address]
            before = self._grown.get(address)
            moving = size > (first if before is None else before.size)
            return moving and address in self._followed, moving, size - first

        return heapq.nlargest(self._size, walk.grown, key=importance)

    def _complete(self, walk: Walk, best: list[str]) -> None:
        self._walk = None
        self.walks += 1
        self._followed = {
            address: (readable(address), walk.grown[address].first) for address in best
        }
        self._capacities = {address: self._capacities[address] for address in best}
        # A quick walk says nothing of the other modules; a full one forgets what is gone.
        self._first = self._first | walk.sizes if self.walks <= self._quick_walks else walk.sizes
        self._grown = walk.grown
