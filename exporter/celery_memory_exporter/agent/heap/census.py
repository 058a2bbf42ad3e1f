"""Counts every object that the garbage collector tracks in this process, by type, within a pause
budget.

Types are counted as type objects and named afterwards, which is four times cheaper than naming each
object (objgraph does). Between two censuses only names are kept: holding type objects would keep
classes alive that the application drops. No attribute of a foreign object is touched, since lazy
proxies execute on access. Nothing is collected first; garbage that waits for the collector counts.

Listing the objects counts a reference of each, which writes to the page that it is on: in a forked
child, pages shared with the main process are copied, 62 MiB for a million objects. A full
collection writes to the same pages. So a child that inherits more objects than the setting
``census_max_objects`` is counted when the collector has been through all of them by itself. Objects
that the application froze (``gc.freeze``) are not listed and stay shared.

No list of objects is held while other threads run: a tuple that one of them is making (``tuple(…)``
of a generator) would have a second reference, and CPython up to 3.13 then fails with a
``SystemError`` in that thread. So objects are listed and counted within one call into C. What
remains: up to 3.11 a collection may begin within that call, and its callbacks (``gc.callbacks``)
take so long that another thread has its turn.

The collector does not track strings, numbers, or dicts and tuples of only such: a leak of those
does not show here.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice, tee
from typing import TypeAlias

from celery_memory_exporter.agent.interruptions import let_pass
from celery_memory_exporter.agent.stats.readings import Readings

#: Distinct type names followed per process. An application that makes classes without end must not
#: make us grow.
MAX_TYPES = 2_000
OTHER_TYPES = "other"
MAX_NAME_LENGTH = 200
#: Types of the agent itself are in no figure.
OWN = ("celery_memory_exporter.agent.", "celery_memory_exporter.common.")
#: First guess of what counting one object costs; the real cost is measured, and believed when it is
#: higher only step by step.
SECONDS_PER_OBJECT = 60e-9
#: What listing one costs, also of those that are not counted (measured: 15 to 25 ns).
SECONDS_PER_LISTED = 20e-9
#: Of the time that passes, at most this share is spent counting.
BUDGET = 0.002

#: Per object type: count, growth since the process started, growth since it was warm.
TypeCount: TypeAlias = "tuple[int, int, int]"
GONE: TypeCount = (0, 0, 0)

_qualname = type.__dict__["__qualname__"].__get__
_module = type.__dict__["__module__"].__get__
_attribute = type.__getattribute__


def type_name(kind: type) -> str:
    """``module.qualified name``, read past whatever the class's own metaclass defines under these
    names."""
    try:
        module, name = _module(kind), _qualname(kind)
    except Exception as error:  # a C type may have none; its plain name always exists
        let_pass(error)
        return str(type.__dict__["__name__"].__get__(kind))
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else str(name)


def listed(generation: int | None = None) -> Iterator[object]:
    """The objects of one generation of the collector, or of all. They are listed when the first one
    is asked for, so to be consumed within one call into C: then no other thread runs meanwhile."""
    return chain.from_iterable(map(gc.get_objects, (generation,)))


def count_types(step: int) -> list[tuple[type, int]]:
    """Types of all objects and their counts; of every ``step``-th object only."""
    if _hashed_in_c():
        return list(Counter(map(type, islice(listed(), 0, None, step))).items())
    return count_types_of(None, step)


def count_types_of(generation: int | None, step: int = 1) -> list[tuple[type, int]]:
    """Types of one generation and their counts, the most frequent first. By identity, which runs no
    code of a metaclass: for each object it takes twice as long."""
    by_identity = dict(_with_identity(kinds(generation)))
    counts = Counter(map(id, islice(kinds(generation), 0, None, step)))
    return [
        (by_identity[each], count) for each, count in counts.most_common() if each in by_identity
    ]


def _with_identity(found: Iterator[type]) -> Iterator[tuple[int, type]]:
    first, second = tee(found)
    return zip(map(id, first), second, strict=True)


def _hashed_in_c() -> bool:
    """Whether counting by type runs no code of the application: no metaclass has a hash of its own,
    nor equality without one."""
    pending: list[type] = [type]
    while pending:
        metaclass = pending.pop()
        if _attribute(metaclass, "__hash__") is not object.__hash__:
            return False
        pending.extend(type.__subclasses__(metaclass))
    return True


def kinds(generation: int | None) -> Iterator[type]:
    return map(type, listed(generation))


class Census:
    """Counts of this process: now, at its start, and at the end of its warm-up."""

    def __init__(
        self,
        least_seconds: float,
        pause_seconds: float,
        *,
        most_copied: int = sys.maxsize,
    ) -> None:
        """``most_copied``: of that many objects, pages that are shared may be copied; of none, and
        nothing is counted at all."""
        self.enabled = most_copied > 0
        self._most_copied = most_copied
        self._expected = 0
        #: Full collections of which there have to be more.
        self._collections = -1
        self._least_seconds = least_seconds
        self._pause_seconds = pause_seconds
        self._cost = SECONDS_PER_OBJECT
        self._started: dict[str, int] | None = None
        self._warm: dict[str, int] | None = None
        self._idle_due = self._busy_due = 0.0
        self.objects: int | None = None
        self.counts: dict[str, int] = {}

    def forked(self) -> Census:
        """Of a child that this process has forked."""
        census = Census(self._least_seconds, self._pause_seconds, most_copied=self._most_copied)
        census._expected = self._expected
        census.share_pages()
        return census

    def share_pages(self) -> None:
        """The process has its pages in common with another one from now on. With many objects on
        them, nothing is counted until the collector has been through them."""
        if self._expected > self._most_copied and self._collections < 0:
            self._collections = Readings.full_collections()

    def due(self, now: float, *, idle: bool) -> bool:
        """Whether to count now (monotonic seconds). An idle process may be counted as often as the
        budget allows."""
        if not self.enabled or now < (self._idle_due if idle else self._busy_due):
            return False
        return Readings.full_collections() > self._collections

    def take(self, *, warm: bool) -> None:
        """Counts, if enabled. ``warm`` tells that start-up is over: what exists then is no growth
        to rank types by."""
        if not self.enabled:
            return
        begun = time.thread_time()
        self.counts = self._count()
        spent = time.thread_time() - begun
        if self._started is None:
            self._started = self.counts
            # In a new child it paid for pages, once: no reason to put the next one off.
            spent = min(spent, (self.objects or 0) * SECONDS_PER_OBJECT)
        if warm and self._warm is None:
            self._warm = self.counts
        now = time.monotonic()
        self._idle_due = now + spent / BUDGET
        self._busy_due = max(self._idle_due, now + self._least_seconds)

    def types(self) -> dict[str, TypeCount]:
        """Per type: count, growth since the process started, and growth since its warm-up ended
        (what types are ranked by)."""
        started = self._started or {}
        reference = started if self._warm is None else self._warm
        return {
            name: (count, count - started.get(name, 0), count - reference.get(name, 0))
            for name, count in self.counts.items()
        }

    def _count(self) -> dict[str, int]:
        left = max(0.001, self._pause_seconds - self._expected * SECONDS_PER_LISTED)
        step = max(1, math.ceil(self._expected * self._cost / left))
        # CPU time, not wall time: on a crowded machine the scheduler's pauses are not ours, and
        # would make us count less.
        begun = time.thread_time()
        by_type = count_types(step)
        number = self.objects = self._expected = sum(count for _, count in by_type) * step
        # In a new child the first one also pays for copying the pages that it shares with the main
        # process, which says nothing of what the later ones cost.
        if self._started is not None:
            counting = time.thread_time() - begun - number * SECONDS_PER_LISTED
            self._cost = max(1e-9, min(counting * step / max(1, number), 2 * self._cost))
        counts: dict[str, int] = {}
        for kind, count in by_type:
            name = type_name(kind)[:MAX_NAME_LENGTH]
            if name.startswith(OWN):
                continue
            if name not in counts and len(counts) >= MAX_TYPES:
                name = OTHER_TYPES
            counts[name] = counts.get(name, 0) + count * step
        return counts


def changed(types: dict[str, TypeCount], sent: dict[str, TypeCount]) -> dict[str, TypeCount]:
    """What has to be sent so that a receiver that has ``sent`` gets to know ``types``: new values,
    and zeros for types gone."""
    news = {name: count for name, count in types.items() if sent.get(name) != count}
    return news | {name: GONE for name in sent if name not in types}


def known(held: dict[str, TypeCount], news: dict[str, TypeCount]) -> dict[str, TypeCount]:
    """What a receiver of ``news`` holds: without the types that are gone, so that endless new ones
    do not add up."""
    return {name: count for name, count in (held | news).items() if count != GONE}
