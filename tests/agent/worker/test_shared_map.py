"""What the worker's processes write into memory that outlives them."""

from __future__ import annotations

import mmap
import os

import pytest

from celery_memory_exporter.agent.stats.budget import Entry
from celery_memory_exporter.agent.worker.shared_map import (
    KEY_BYTES,
    MAX_ROW_BYTES,
    MAX_SLOTS,
    PLACES_PER_SLOT,
    ROW_BYTES,
    Shape,
    SharedMap,
)

KEY = ("shop.t", "q")


@pytest.fixture
def shared() -> SharedMap:
    return SharedMap.anonymous(Shape(slots=4, rows=3, places=16))


def runs(shared: SharedMap) -> list[tuple[int, str, int]]:
    return [(row.pid, row.key[0], row.totals.runs) for row in shared.rows()]


# --- what a process does now ---------------------------------------------------------------------


def test_what_a_child_was_doing_survives_it(shared: SharedMap) -> None:
    if os.fork() == 0:
        place = shared.claim(3)
        assert place is not None
        place.write(os.getpid(), 123.5, 50, 60, b"shop.fatal")
        os.kill(os.getpid(), 9)
    pid, _ = os.wait()
    assert shared.take(3, pid + 1) is None
    state = shared.take(3, pid)
    assert state is not None
    told = state.since, state.rss_bytes, state.peak_bytes, state.task
    assert told == (123.5, 50, 60, "shop.fatal")
    assert shared.take(3, pid) is None


def test_a_successor_does_not_write_over_what_nobody_has_read(shared: SharedMap) -> None:
    places = []
    for pid in range(1, PLACES_PER_SLOT + 1):
        place = shared.claim(0)
        assert place is not None
        places.append(place.number)
        place.write(pid, float(pid), 0, 0, b"t%d" % pid)
    assert len(set(places)) == PLACES_PER_SLOT
    assert shared.claim(0).number == places[0], "the oldest goes first when there is no room"
    assert [state.task for state in shared.states()] == ["t1", "t2", "t3", "t4"]
    assert [shared.take(0, pid).task for pid in (1, 2, 3, 4)] == ["t1", "t2", "t3", "t4"]  # type: ignore[union-attr]
    assert shared.states() == []


@pytest.mark.parametrize("slot", [-1, 4, 10**6])
def test_a_slot_beyond_the_last_has_nothing(shared: SharedMap, slot: int) -> None:
    assert shared.claim(slot) is None
    assert shared.take(slot, 1) is None
    assert shared.new_row(slot, 1, KEY) is None


def test_an_account_is_its_slots_own_and_outlives_a_process(shared: SharedMap) -> None:
    if os.fork() == 0:
        shared.account(1)[Entry.AUDITS] += 0.5
        os.kill(os.getpid(), 9)
    os.wait()
    spent = [shared.account(slot)[Entry.AUDITS] for slot in range(4)]
    assert spent == [0.0, 0.5, 0.0, 0.0]
    assert list(shared.rows()) == []


def test_a_slot_beyond_the_last_has_an_account_of_the_processs_own(shared: SharedMap) -> None:
    shared.account(4)[Entry.AUDITS] += 0.5
    assert shared.account(4)[Entry.AUDITS] == 0


# --- what its runs add up to ---------------------------------------------------------------------


def test_what_a_killed_childs_runs_came_to_can_be_read(shared: SharedMap) -> None:
    if os.fork() == 0:
        row = shared.new_row(1, os.getpid(), KEY)
        assert row is not None
        for _ in range(3):
            row.add_run(0, 0.5)
        os.kill(os.getpid(), 9)
    pid, _ = os.wait()
    (row,) = shared.rows()
    assert (row.slot, row.pid, row.key) == (1, pid, KEY)
    assert row.totals.runs_by_outcome == {"succeeded": 3}
    assert row.totals.seconds_by_outcome == {"succeeded": 1.5}


def test_rows_are_apart(shared: SharedMap) -> None:
    for slot in range(4):
        for number in range(3):
            row = shared.new_row(slot, 10 + slot, (f"t{number}", "q"))
            assert row is not None
            row.add_run(0, 1.0)
            row.add_peak(1e12)
    assert runs(shared) == [
        (10 + slot, f"t{number}", 1) for slot in range(4) for number in range(3)
    ]
    assert shared.states() == []
    assert not any(shared.journal)
    assert shared.new_row(0, 10, KEY) is None, "there is no room for another one"


def test_a_row_that_was_freed_begins_at_zero(shared: SharedMap) -> None:
    for pid in (1, 2, 3):
        row = shared.new_row(0, pid, KEY)
        assert row is not None
        row.add_run(0, 1.0)
    shared.free([row.number for row in shared.rows()][1])
    assert runs(shared) == [(1, "shop.t", 1), (3, "shop.t", 1)]
    assert shared.new_row(0, 4, ("shop.u", "q")) is not None
    assert runs(shared) == [(1, "shop.t", 1), (4, "shop.u", 0), (3, "shop.t", 1)]


def test_rows_that_are_known_are_left_out(shared: SharedMap) -> None:
    for pid in (1, 2):
        assert shared.new_row(0, pid, KEY) is not None
    first, second = shared.rows()
    assert [row.pid for row in shared.rows({(first.number, 1)})] == [2]
    shared.free(second.number)
    assert shared.new_row(0, 3, KEY) is not None
    assert [row.pid for row in shared.rows({(first.number, 1), (second.number, 2)})] == [3]


@pytest.mark.parametrize(
    "key", [("a" * KEY_BYTES, ""), ("ä" * 60, "ö" * 12), ("", ""), ("a\0b", "c")]
)
def test_names_come_back_as_they_were(shared: SharedMap, key: tuple[str, str]) -> None:
    assert shared.new_row(0, 1, key) is not None
    assert [row.key for row in shared.rows()] == [key]


def test_a_name_that_does_not_fit_has_no_row(shared: SharedMap) -> None:
    assert shared.new_row(0, 1, ("a" * KEY_BYTES, "b")) is None
    assert list(shared.rows()) == []


# --- its size ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "tasks"), [(1, 200), (8, 200), (64, 200), (5_000, 10_000)])
def test_a_map_is_never_large(slots: int, tasks: int) -> None:
    shape = Shape.of(slots, tasks)
    assert shape.slots == min(slots, MAX_SLOTS)
    assert 0 < shape.rows <= tasks
    assert shape.slots * shape.rows * ROW_BYTES <= MAX_ROW_BYTES
    assert shape.size < 5 * 1024 * 1024


def test_a_map_that_was_left_is_read_as_it_was(shared: SharedMap) -> None:
    assert shared.new_row(2, 7, KEY) is not None
    again = SharedMap.left(shared._memory)
    assert (again.shape, runs(again)) == (shared.shape, [(7, "shop.t", 0)])


@pytest.mark.parametrize("size", [1, 4096, Shape(4, 3, 16).size])
def test_what_is_no_map_is_not_read(size: int) -> None:
    with pytest.raises(ValueError, match="map"):
        SharedMap.left(mmap.mmap(-1, size))
