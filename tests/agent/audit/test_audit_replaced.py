"""What a run replaces is not left behind, whether or not it has cycles."""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from celery_memory_exporter.agent.audit.audit import Auditor
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.stats.budget import Budget, new_account
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.profile import Column, ProfileRow
from celery_memory_exporter.agent.stats.readings import Readings
from tests.agent.audit.harness import (
    ROOM,
    Trace,
    answer,
    failing,
    figures_of,
    keep,
    make_meter,
    profile_of,
    returning,
    run,
)

pytestmark = pytest.mark.usefixtures("heap_as_it_was")


class Node:
    def __init__(self, parent: Node | None = None) -> None:
        self.parent, self.children = parent, list[Node]()
        if parent is not None:
            parent.children.append(self)


def tree() -> Node:
    root = Node()
    for _ in range(30):
        Node(root)
    return root


class Kept:
    """What a module of an application keeps."""

    last: Any = None
    pages: ClassVar[OrderedDict[int, Node]] = OrderedDict()
    calls = 0


def keep_last() -> None:
    Kept.last = tree()


def keep_error() -> None:
    try:
        raise ValueError("the last one")
    except ValueError as error:
        Kept.last = same = error  # its traceback refers to this frame, and the frame to it
        assert same


def keep_twenty() -> None:
    Kept.calls += 1
    Kept.pages[Kept.calls] = tree()
    if len(Kept.pages) > 20:
        Kept.pages.popitem(last=False)


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    Kept.last = None
    Kept.pages.clear()
    gc.collect()


def meter_with_time() -> Meter:
    meter = make_meter()
    meter.auditor.confirming = Budget(0.0, 1e9)
    return meter


def blocks_of_audits(meter: Meter, trace: Trace, audits: int = 9) -> list[float]:
    """What each of the next ones told: in some, a thread of the test runner may have its share."""
    found: list[float] = []
    profile = profile_of(meter)
    while len(found) < audits:
        profile.row = ProfileRow()
        run(meter, trace)
        if profile.row.sums(0)[Column.AUDITED]:
            found.append(profile.row.sums(0)[Column.BLOCKS])
    return found


@pytest.mark.parametrize("body", [keep_last, keep_error, keep_twenty])
def test_what_has_cycles_and_is_replaced_counts_for_nothing(body: Callable[[], None]) -> None:
    meter = meter_with_time()
    run(meter, returning(body), times=60)
    assert profile_of(meter).replaces
    assert profile_of(meter).confirmations >= 20
    blocks = statistics.median(blocks_of_audits(meter, returning(body)))
    # Fewer do no harm: an error's frames hold what the tracer's hold once their audit is over.
    assert blocks <= 0 if body is keep_error else blocks == 0


def test_a_leak_beside_what_is_replaced_is_told_to_the_block() -> None:
    def task() -> None:
        keep_last()
        first = ROOM.index(None)
        for place in range(10):
            ROOM[first + place] = object()

    meter = meter_with_time()
    run(meter, returning(task), times=30)
    assert profile_of(meter).replaces
    assert statistics.median(blocks_of_audits(meter, returning(task))) == 10


def cut() -> tuple[int, ...]:
    """Made long and cut: it goes into another list of free tuples than the next one is taken from,
    and no list is full after so few runs."""
    return tuple(each for each in range(3))


def test_tuples_that_wait_to_be_used_again_are_not_left_behind() -> None:
    """Audits that confirm fill the list that they go into."""
    meter = meter_with_time()
    gc.collect()
    run(meter, returning(lambda: [cut() for _ in range(3)]), times=100)
    assert statistics.median(blocks_of_audits(meter, returning(cut))) == 0


def test_a_small_leak_beside_such_tuples_is_told() -> None:
    def task() -> None:
        ROOM[ROOM.index(None)] = object()
        cut()

    meter = meter_with_time()
    gc.collect()
    run(meter, returning(task), times=60)
    assert 1 <= statistics.median(blocks_of_audits(meter, returning(task))) <= 2


def test_native_memory_beside_such_tuples_is_told() -> None:
    def task() -> None:
        ROOM[ROOM.index(None)] = bytes(100_000)
        cut()

    meter = meter_with_time()
    gc.collect()
    run(meter, returning(task), times=60)
    assert not profile_of(meter).replaces


def test_what_only_failing_runs_leave_behind_goes_on_being_audited() -> None:
    """Those that succeed leave nothing behind in any confirming audit."""
    leaks = failing(lambda: keep(20))
    calls = itertools.count()
    meter = meter_with_time()
    run(meter, lambda *_: leaks() if next(calls) % 2 else answer(), times=100)
    assert profile_of(meter).confirmations >= 3
    assert not profile_of(meter).replaces


def test_a_leak_is_confirmed_a_few_times_and_goes_on_being_audited() -> None:
    def task() -> None:
        ROOM[ROOM.index(None)] = tree()

    meter = meter_with_time()
    run(meter, returning(task), times=60)
    figures = figures_of(profile_of(meter).row)
    assert not profile_of(meter).replaces
    assert 3 <= profile_of(meter).confirmations <= 10
    assert figures["audited"] >= 20
    assert figures["blocks"] / figures["audited"] > 60


def test_a_leak_that_replaces_little_beside_goes_on_being_audited() -> None:
    """As a connection that is made anew now and then."""

    def task() -> None:
        ROOM[ROOM.index(None)] = tree()
        Kept.last = [Node(Node()) for _ in range(3)]

    meter = meter_with_time()
    run(meter, returning(task), times=60)
    assert not profile_of(meter).replaces
    assert figures_of(profile_of(meter).row)["audited"] >= 20


def test_nothing_is_confirmed_where_nothing_is_suspected() -> None:
    meter = meter_with_time()
    before = gc.get_stats()[2]["collections"]
    run(meter, returning(lambda: None), times=60)
    assert profile_of(meter).confirmations == 0
    if sys.version_info < (3, 14):
        assert gc.get_stats()[2]["collections"] - before <= 1


def test_what_confirming_audits_read_too_much_is_measured_once_in_a_pool_slots_life() -> None:
    account, suspect = new_account(), TaskProfile()
    first = Auditor(Readings(), account, enabled=True)
    assert any(first.confirms(suspect, 1e9, suspected=True) for _ in range(5))
    collected: list[int] = []
    gc.callbacks.append(lambda _, info: collected.append(info["generation"]))
    try:
        assert Auditor(Readings(), account, enabled=True).confirms(suspect, 1e9, suspected=True)
    finally:
        gc.callbacks.pop()
    assert 2 not in collected


def test_without_time_for_a_full_collection_nothing_is_known() -> None:
    """As on a heap of many millions of objects."""
    meter = meter_with_time()
    run(meter, returning(keep_last), times=20)
    assert profile_of(meter).replaces
    meter.auditor.confirming = Budget(0.0, -10.0)
    audited = figures_of(profile_of(meter).row)["audited"]
    run(meter, returning(keep_last), times=20)
    after = figures_of(profile_of(meter).row)
    assert (after["audited"], after["sampled"]) == (audited, 0)


def test_nothing_is_collected_where_the_application_switched_its_collector_off() -> None:
    meter = meter_with_time()
    gc.disable()
    try:
        before = [each["collections"] for each in gc.get_stats()]
        run(meter, returning(keep_last), times=60)
        assert [each["collections"] for each in gc.get_stats()] == before
    finally:
        gc.enable()
