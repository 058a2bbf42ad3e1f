"""One walk from each module to whatever lives as long as it does: its containers, its classes' and
instances' attributes, default arguments, closures, caches, loggers, thread-locals.

* Between two steps only addresses, numbers and module names need be kept, no object.
* No foreign code runs: objects are read by their shapes and found again by their addresses only.
* What the walk remembers is bounded, and what it meets only in this package is left out (its demo
  application is not).
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from enum import IntEnum
from typing import Any, NamedTuple

from celery_memory_exporter.agent.application import installed_as, is_application
from celery_memory_exporter.agent.heap.addresses import MISSING, STEPS, follow, resolve
from celery_memory_exporter.agent.heap.foreign import is_own, is_plain, namespace_of
from celery_memory_exporter.agent.heap.parts import SEPARATOR, attributes_in
from celery_memory_exporter.agent.heap.shapes import LEAF, Shape, measure, shape_of

#: Some 80 bytes each. A worker with 500 modules has 1,700, one with 1,100 has 5,700.
MAX_ADDRESSES = 50_000
MAX_GROWN = 2_000
#: Objects that are looked into below one module.
MAX_NODES = 5_000
#: Below a module's or a class's own attribute: four attributes, or two keys.
MAX_DEPTH = 4


class Grown(NamedTuple):
    """A container that is larger than when it was first seen."""

    size: int
    first: int


class Rank(IntEnum):
    """Modules in the order in which a walk enters them."""

    #: Before all, so that no other name for ``sys.modules`` is met.
    SYS = 0
    APPLICATION = 1
    LOGGERS = 2
    PACKAGE = 3
    LIBRARY = 4


def rank_of(name: str, module: Any) -> Rank:
    """By the module's name, else by where its file is. ``__main__`` is the application's."""
    if name == "sys":
        return Rank.SYS
    if name == "logging":
        return Rank.LOGGERS
    if name == "__main__":
        return Rank.APPLICATION
    namespace = namespace_of(module)
    file = dict.get(namespace, "__file__") if type(namespace) is dict else None
    if type(file) is not str:
        known = name.partition(".")[0] in sys.stdlib_module_names
        return Rank.LIBRARY if known else Rank.APPLICATION
    if is_application(file):
        return Rank.APPLICATION
    return Rank.LIBRARY if installed_as(file) is None else Rank.PACKAGE


class Walk:
    """A walk in steps, over the modules up to ``last`` in rank; nothing of the application is held
    after ``release``. ``first``: what earlier walks have as ``sizes``."""

    def __init__(self, first: dict[int, int], last: Rank) -> None:
        loaded = sys.modules.copy()
        ranks = {
            name: rank_of(name, module)
            for name, module in loaded.items()
            if type(name) is str and not is_own(name)
        }
        self._modules = sorted(
            (name for name in ranks if ranks[name] <= last), key=ranks.__getitem__
        )[::-1]
        self._first = first
        self._frontier: deque[tuple[str, int]] = deque()
        self._held: dict[str, Any] = {}
        self._shapes: dict[int, tuple[type, Shape]] = {}
        self._visited: set[int] = set()
        #: The module that the walk is at, and how many objects it has looked into there.
        self.module = ""
        self.nodes = 0
        #: hash(address) -> size when first seen; keeping the hash takes a third of the memory of
        #: the address.
        self.sizes: dict[int, int] = {}
        #: Those that grew, by address.
        self.grown: dict[str, Grown] = {}

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
                        depth if shape.kind == "class" else depth + STEPS[step[0]].depth,
                    )
        return True

    def release(self) -> None:
        """Lets go of all objects: the frontier goes on by address."""
        self._held.clear()
        self._shapes.clear()

    def _enter(self, name: str) -> None:
        module = sys.modules.get(name)
        if module is None or id(module) in self._visited:
            return
        self._visited.add(id(module))
        self.module, self.nodes = name, 0
        if name == "logging":
            for logger in ("", *logging.root.manager.loggerDict.copy()):
                self._admit(follow(module, "!" + logger), name, "!" + logger, 0)
        namespace = namespace_of(module)
        if namespace is not None:
            for step, child in attributes_in(namespace):
                if not is_plain(child):
                    self._admit(child, name, step, 0)

    def _admit(self, found: Any, above: str, step: str, depth: int) -> None:
        """Notes an object's size, and that it is to be looked into, if it is worth either."""
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
        if shape.parts and self.nodes < MAX_NODES:
            self._visited.add(id(found))
            self.nodes += 1
            self._frontier.append((address, depth))
            self._held[address] = found

    def _is_elsewhere(self, shape: Shape, found: Any) -> bool:
        """Whether the walk meets it in another module, by which it is to be named."""
        home = None if shape.home is None else shape.home(found)
        return type(home) is str and home != self.module and home in sys.modules

    def _record(self, address: str, size: int) -> None:
        key = hash(address)
        if len(self.sizes) >= MAX_ADDRESSES:
            return
        first = self.sizes[key] = self._first.get(key, size)
        if size > first and len(self.grown) < MAX_GROWN:
            self.grown[address] = Grown(size, first)

    def _shape(self, kind: type) -> Shape:
        known = self._shapes.get(id(kind))
        if known is None:
            known = self._shapes[id(kind)] = (kind, shape_of(kind))
        return known[1]
