"""What was counted since all counts were last written."""

from __future__ import annotations

import mmap
import os

import pytest

from celery_memory_exporter.agent.worker.journal import Journal

EVENT = ("task-succeeded", "shop.t", "q", 0.5, None)
SIZE = 1024


@pytest.fixture
def memory() -> memoryview:
    return memoryview(mmap.mmap(-1, SIZE))


def numbered(number: int) -> tuple[object, ...]:
    return ("task-started", f"t{number}", "q", None, 1.5)


def left(memory: memoryview, number: int = 0) -> list[tuple[object, ...]]:
    return list(Journal(memory).events(number))


def test_events_come_back_in_their_order(memory: memoryview) -> None:
    journal = Journal(memory)
    events = [EVENT, numbered(1), ("task-failed", "ä", "", "ValueError", None)]
    assert all(journal.add(event) for event in events)
    assert left(memory) == events


def test_events_survive_their_process(memory: memoryview) -> None:
    if os.fork() == 0:
        Journal(memory).add(EVENT)
        os.kill(os.getpid(), 9)
    os.wait()
    assert left(memory) == [EVENT]


def test_a_full_half_takes_no_more_and_loses_nothing(memory: memoryview) -> None:
    journal = Journal(memory)
    taken = 0
    while journal.add(numbered(taken)):
        taken += 1
    assert 5 < taken < SIZE / 2 / 20
    assert left(memory) == [numbered(number) for number in range(taken)]


def test_as_long_as_counts_are_written_both_halves_tell(memory: memoryview) -> None:
    """Counts that say ``number`` have all events before that half; until they are written, those
    before them hold, and what was counted since is in both halves."""
    journal = Journal(memory)
    journal.add(numbered(1))
    number = journal.turn()
    journal.add(numbered(2))
    assert left(memory, 0) == [numbered(1), numbered(2)]
    assert left(memory, number) == [numbered(2)]


@pytest.mark.parametrize("turns", range(6))
def test_after_any_number_of_turns_only_what_came_since_is_told(
    memory: memoryview, turns: int
) -> None:
    journal = Journal(memory)
    number = 0
    for turn in range(turns):
        journal.add(numbered(turn))
        number = journal.turn()
    journal.add(EVENT)
    assert left(memory, number) == [EVENT]


def test_an_event_longer_than_any_is_not_taken() -> None:
    memory = memoryview(mmap.mmap(-1, 1024 * 1024))
    assert not Journal(memory).add(("x" * 70_000,))
    assert left(memory) == []
