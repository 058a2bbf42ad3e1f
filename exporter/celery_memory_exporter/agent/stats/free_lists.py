"""Python's own free lists, filled: what a run takes out of them or puts into them does not show in
the count of blocks.

A freed float, list or small dict stays a live block of the allocator until another one takes its
place. So the count of blocks (``sys.getallocatedblocks``) tells of a run's floats only once that
list is empty, and never of what it freed. With full lists at both ends of a run, the difference is
what the run holds. A full collection would empty them, which is exact as well, and costs 0.2 s on a
heap of a million objects instead of 30 µs.

The lists of tuples, one for each size, hold 2,000 and are filled where it is needed only: some
0.1 ms each. In a process that has run for a while they hardly change, but for two kinds of tasks.
The traceback of a failed run has thousands of tuples, which the worker holds until its next
failure: each second one seems to leave as many behind. Tuples that are made of generators are made
long and cut, so they are not freed into the list that they are taken from: each run seems to leave
some until that list is full. Measured on CPython 3.10 to 3.13, over ten kinds of tasks in turns:
the mean error is 0.00 blocks a run, and 11 blocks without filling.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat

#: What CPython keeps at most: ``PyFloat_MAXFREELIST``, ``PyList_MAXFREELIST``,
#: ``PyDict_MAXFREELIST`` (and as many keys of dicts).
FLOATS, LISTS, DICTS = 100, 80, 80
#: ``PyTuple_MAXFREELIST`` of each size below ``PyTuple_MAXSAVESIZE``.
TUPLES, SIZES = 2_000, range(1, 20)
#: Of so many a list has at least the half, if it has any that matter.
WAITING = 200


def fill(tuples: frozenset[int] = frozenset()) -> None:
    """Makes as many objects of each kind as its list holds, and one more, and drops them. Tuples of
    these sizes only."""
    if tuples:
        _fill_tuples(tuples)
    floats = [index + 0.5 for index in range(FLOATS + 1)]
    lists: list[list[int]] = [[] for _ in range(LISTS + 1)]
    # Only keys that are all strings have a list.
    dicts = [{"key": None} for _ in range(DICTS + 1)]
    del floats, lists, dicts


def tuples_waiting() -> frozenset[int]:
    """The sizes of which many free tuples wait to be used again."""
    with _no_collection():
        return frozenset([size for size in SIZES if _new_blocks(size) < WAITING / 2])


def _new_blocks(size: int) -> int:
    """How many of ``WAITING`` tuples are not taken from their list."""
    before = sys.getallocatedblocks()
    held = list(_tuples(size, WAITING))
    new = sys.getallocatedblocks() - before
    del held
    return new


def _fill_tuples(sizes: frozenset[int]) -> None:
    with _no_collection():
        for size in sizes:
            list(_tuples(size, TUPLES + 1))


def _tuples(size: int, count: int) -> Iterator[tuple[None, ...]]:
    return map(tuple, repeat([None] * size, count))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Thousands of tuples at a time would let the collector run."""
    enabled = gc.isenabled()
    try:  # first: a soft time limit may arrive at any instruction
        gc.disable()
        yield
    finally:
        if enabled:
            gc.enable()
