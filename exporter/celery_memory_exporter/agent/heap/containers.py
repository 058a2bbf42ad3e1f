"""Which long-lived container of this process grows: the holder that a leak is found in.

Walks from each module to whatever lives as long as it does: its containers, its classes' and
instances' attributes, default arguments, closures, caches, loggers, thread-locals. It sees what the
garbage collector's census cannot: dicts of strings, strings and bytearrays are not tracked.

* Between two calls only addresses, numbers and module names are kept, no object: what the
  application drops is freed.
* No foreign code runs: objects are read by their shapes and found again by their addresses only.
* What the walk remembers is bounded, and what it meets only in this package is left out (its demo
  application is not).
"""

from __future__ import annotations

import heapq
import logging
import os
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from celery_memory_exporter.agent.heap.addresses import (
    MISSING,
    STEPS,
    follow,
    readable,
    resolve,
    shape_of,
)
from celery_memory_exporter.agent.heap.capacity import limits_of
from celery_memory_exporter.agent.heap.shapes import (
    LEAF,
    MAX_NODES_PER_MODULE,
    SEPARATOR,
    Shape,
    attributes_in,
    is_own,
    is_plain,
    known_shape,
    measure,
    namespace_of,
)

#: Some 80 bytes each. A worker with 500 modules has 1,700, one with 1,100 has 5,700.
MAX_ADDRESSES = 50_000
MAX_GROWN = 2_000
#: Below a module's or a class's own attribute: four attributes, or two keys.
MAX_DEPTH = 4
#: The first walks look at the application's own modules only: most holders are there, and it takes
#: some milliseconds.
QUICK_WALKS = 2
APPLICATION, ALL = 2, 4
STANDARD_LIBRARY = os.path.dirname(os.__file__) + os.sep


@dataclass(frozen=True, slots=True)
class ContainerRow:
    """A container that grows. ``growth``: items more than when first seen; ``limit``: most items it
    can ever have (``limits``)."""

    path: str
    kind: str
    items: int
    growth: int
    limit: int | None


def _rank(name: str, module: Any) -> int:
    """``sys`` first, so that no other name for ``sys.modules`` is met; then the application,
    loggers, packages, the library."""
    if name in ("sys", "__main__", "logging"):
        return {"sys": 0, "__main__": 1, "logging": 2}[name]
    namespace = namespace_of(module)
    file = dict.get(namespace, "__file__") if type(namespace) is dict else None
    if type(file) is not str:
        return 4 if name.partition(".")[0] in sys.stdlib_module_names else 1
    if "/site-packages/" in file or "/dist-packages/" in file:
        return 3
    return 4 if file.startswith(STANDARD_LIBRARY) else 1


class _Walk:
    """One walk over all modules, or the application's, in steps; nothing of the application is held
    after ``rest``."""

    def __init__(self, first: dict[int, int], last_rank: int) -> None:
        loaded = sys.modules.copy()
        ranks = {
            name: _rank(name, module)
            for name, module in loaded.items()
            if type(name) is str and not is_own(name)
        }
        self._modules = sorted(
            (name for name in ranks if ranks[name] <= last_rank), key=ranks.__getitem__
        )[::-1]
        self._first = first
        self._frontier: deque[tuple[str, int]] = deque()
        self._held: dict[str, Any] = {}
        self._shapes: dict[int, tuple[type, Shape]] = {}
        self._visited: set[int] = set()
        self._module = ""
        self._nodes = 0
        #: By an address's hash, which is a third of the address: size when first seen.
        self.sizes: dict[int, int] = {}
        #: Of those that grew: size now and when first seen.
        self.grown: dict[str, tuple[int, int]] = {}

    def step(self) -> bool:
        """Looks into one object; false when there is none left."""
        if not self._frontier:
            if not self._modules:
                return False
            self._enter(self._modules.pop())
            return True
        address, depth = self._frontier.popleft()
        found = self._held.pop(address, MISSING)
        if found is MISSING:
            found = resolve(address)
        shape = self._shape(type(found))
        for parts in shape.parts:
            for step, child in parts(found):
                if not is_plain(child):
                    self._admit(
                        child,
                        address,
                        step,
                        depth if shape.kind == "class" else depth + STEPS[step[0]][1],
                    )
        return True

    def rest(self) -> None:
        """Lets go of all objects: the frontier goes on by address."""
        self._held.clear()
        self._shapes.clear()

    def _enter(self, name: str) -> None:
        module = sys.modules.get(name)
        if module is None or id(module) in self._visited:
            return
        self._visited.add(id(module))
        self._module, self._nodes = name, 0
        if name == "logging":
            for logger in ("", *logging.root.manager.loggerDict.copy()):
                self._admit(follow(module, "!" + logger), name, "!" + logger, 0)
        namespace = namespace_of(module)
        if namespace is not None:
            for step, child in attributes_in(namespace):
                if not is_plain(child):
                    self._admit(child, name, step, 0)

    def _admit(self, found: Any, above: str, step: str, depth: int) -> None:
        shape = self._shape(type(found))
        if (
            shape is LEAF
            or depth > MAX_DEPTH
            or id(found) in self._visited
            or self._is_elsewhere(shape, found)
        ):
            return
        size = None if shape.size is None else measure(found)
        if size is not None and size < shape.least:
            size = None
        if size is None and not shape.parts:
            return
        address = f"{above}{SEPARATOR}{step}"
        if size is not None:
            self._record(address, size)
        if shape.parts and self._nodes < MAX_NODES_PER_MODULE:
            self._visited.add(id(found))
            self._nodes += 1
            self._frontier.append((address, depth))
            self._held[address] = found

    def _is_elsewhere(self, shape: Shape, found: Any) -> bool:
        home = None if shape.home is None else shape.home(found)
        return type(home) is str and home != self._module and home in sys.modules

    def _record(self, address: str, size: int) -> None:
        key = hash(address)
        if len(self.sizes) >= MAX_ADDRESSES:
            return
        first = self.sizes[key] = self._first.get(key, size)
        if size > first and len(self.grown) < MAX_GROWN:
            self.grown[address] = (size, first)

    def _shape(self, kind: type) -> Shape:
        known = self._shapes.get(id(kind))
        if known is None:
            known = self._shapes[id(kind)] = (kind, shape_of(kind))
        return known[1]


class Probe:
    """Follows the ``size`` containers of this process that grow most. For one thread; make a new
    one after a fork."""

    def __init__(self, size: int = 20, quick_walks: int = QUICK_WALKS) -> None:
        self.walks = 0
        self._quick_walks = quick_walks
        self._size = size
        self._walk: _Walk | None = None
        self._first: dict[int, int] = {}
        self._grown: dict[str, tuple[int, int]] = {}
        #: By address: path and size when first seen, and what may limit it.
        self._followed: dict[str, tuple[str, int]] = {}
        self._limits: dict[str, tuple[int, ...]] = {}

    def work(self, seconds: float) -> bool:
        """Goes on with the walk for about so long; true if that completed it. The next call begins
        the next one.

        By the thread's own time: on a crowded machine the walk would get nowhere by the clock's,
        and its suspect stay without a holder.
        """
        deadline = time.thread_time() + seconds
        if self._walk is None:
            self._walk = _Walk(self._first, APPLICATION if self.walks < self._quick_walks else ALL)
        walk = self._walk
        try:
            while walk.step():
                if time.thread_time() >= deadline:
                    return False
        finally:
            walk.rest()
        best = self._best(walk)
        for address in best:
            if address not in self._limits:
                self._limits[
                    address
                ] = ()  # in place before the search: if that fails once, it fails each time
                self._limits[address] = limits_of(address)
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

    def rows(self) -> list[ContainerRow]:
        """The containers followed that still exist, the greatest growth first."""
        rows = []
        for address, (path, first) in self._followed.items():
            found = resolve(address)
            items = measure(found)
            if items is not None:
                shape = known_shape(found)
                if shape.limit is not None:
                    limit = shape.limit(found)
                else:
                    limit = next(
                        (number for number in self._limits[address] if number >= items), None
                    )
                rows.append(ContainerRow(path, shape.kind, items, items - first, limit))
        return sorted(rows, key=lambda row: -row.growth)

    def _best(self, walk: _Walk) -> list[str]:
        """First what was followed and still grows, then what still grows, then what has grown
        most."""

        def importance(address: str) -> tuple[bool, bool, int]:
            size, first = walk.grown[address]
            moving = size > self._grown.get(address, (first, first))[0]
            return moving and address in self._followed, moving, size - first

        return heapq.nlargest(self._size, walk.grown, key=importance)

    def _complete(self, walk: _Walk, best: list[str]) -> None:
        self._walk = None
        self.walks += 1
        self._followed = {address: (readable(address), walk.grown[address][1]) for address in best}
        self._limits = {address: self._limits[address] for address in best}
        # A quick walk says nothing of the other modules; a full one forgets what is gone.
        self._first = self._first | walk.sizes if self.walks <= self._quick_walks else walk.sizes
        self._grown = walk.grown
