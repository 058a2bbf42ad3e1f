"""Blocks that wait to be used again do not look like memory that a run holds."""

from __future__ import annotations

import gc
import statistics
import sys
from array import array
from collections.abc import Callable, Iterator

import pytest

from celery_memory_exporter.agent.stats import free_lists

BLOCKS = array("q", [0, 0])


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    """A full one would empty the lists of tuples as well."""
    gc.disable()
    yield
    gc.enable()


#: Odd, so that the one in the middle is one that was read.
TIMES = 9


def blocks_left(body: Callable[[], object]) -> int:
    """Of most runs: the first has caches of its own code made, and a thread of the test runner's
    may allocate in any."""
    left = []
    for _ in range(TIMES):
        free_lists.fill()
        BLOCKS[0] = sys.getallocatedblocks()
        body()
        free_lists.fill()
        BLOCKS[1] = sys.getallocatedblocks()
        left.append(BLOCKS[1] - BLOCKS[0])
    return statistics.median(left)


def drain() -> list[object]:
    """As many floats, lists and dicts as wait, and some more: what a run finds after others."""
    return [*map(float, range(500)), *([] for _ in range(500)), *({"k": 1} for _ in range(500))]


@pytest.mark.parametrize(
    "body",
    [
        lambda: sum(number * 0.5 for number in range(1_000)),
        lambda: len([[] for _ in range(1_000)]),
        lambda: len([{"key": number} for number in range(1_000)]),
        lambda: len(drain()),
    ],
)
def test_a_run_that_frees_all_leaves_nothing(body: Callable[[], object]) -> None:
    assert blocks_left(body) == blocks_left(lambda: None)


def test_what_is_kept_counts_though_it_was_taken_from_a_list() -> None:
    kept: list[object] = [None] * 30 * TIMES

    def keep() -> None:
        first = kept.index(None)
        for at in range(first, first + 30, 3):
            kept[at], kept[at + 1], kept[at + 2] = at + 0.25, [], {"key": at}

    # A float, a list, and a dict with its keys, ten times.
    assert blocks_left(keep) - blocks_left(lambda: None) == 40
