"""What one worker's events add up to, and which of them are lost by its own count."""

from __future__ import annotations

import pytest

from celery_memory_exporter.common.report import Running
from tests.fleet.stream import a_worker, beats


def test_what_a_worker_started_and_nobody_heard_of_is_lost() -> None:
    worker = a_worker()
    assert beats(worker, (100, 0)) is None, "it may send no events at all"
    assert beats(worker, (101, 1), (110, 6), (111, 1), (112, 1)) == 0, (
        "the last ones may be on their way"
    )
    assert beats(worker, (113, 1)) == 3
    assert beats(worker, (200, 50), (201, 38), (202, 1), (203, 1), (204, 1)) == 3, (
        "they were only late"
    )


def test_all_events_of_some_seconds_are_lost() -> None:
    assert beats(a_worker(), (1, 1), (50, 0), (99, 0), (100, 1), (101, 1), (102, 1), (102, 0)) == 98


@pytest.mark.parametrize(
    "told",
    [
        # disable_events, then enable_events
        [
            (1, 1),
            (2, 1),
            *((3 + number, 0) for number in range(100)),
            *((103 + number, 1) for number in range(10)),
        ],
        [
            (1, 1),
            (2, 1),
            (0, 0),
            *((number, 0) for number in range(100)),
        ],  # started anew, without -E
        [(100, 0), *((300 + number, 1) for number in range(10))],  # enable_events in mid-life
        [
            (5_000 + number if number % 2 else 4_000 + number, 1) for number in range(20)
        ],  # two workers of one name
        [
            (0, 0),
            (5, 5),
            (10, 5),
            (10, 0),
            (10, 0),
            (15, 5),
            (15, 0),
            (15, 0),
            (20, 0),
            (20, 5),
        ],  # with pauses
        [
            (24 * number, 24 if number % 2 else 0 if number < 2 else 24) for number in range(1, 20)
        ],  # in batches
    ],
)
def test_nothing_is_lost_that_was_never_sent(told: list[tuple[int, int]]) -> None:
    assert beats(a_worker(), *told) == 0


def test_a_worker_that_is_muted_is_counted_anew_and_what_was_lost_stays() -> None:
    worker = a_worker()
    assert beats(worker, (1, 1), (5, 1), (6, 1), (7, 1), (8, 1)) == 3
    worker.mute()
    assert beats(worker, (500, 0), (501, 1), (502, 1), (503, 1), (504, 1), (505, 1)) == 3


def test_runs_beyond_those_active_are_the_oldest_that_have_settled() -> None:
    worker = a_worker()
    worker.running = {str(second): ("t", float(second)) for second in range(10)}
    assert worker.surplus(active=8, now=10.0) == ["0", "1"]
    assert worker.surplus(active=0, now=10.0) == ["0", "1", "2", "3", "4"]
    assert worker.surplus(active=20, now=10.0) == []


def test_running_tasks_are_told_by_type_with_the_oldest_of_each() -> None:
    worker = a_worker()
    worker.running = {"1": ("t", 3.0), "2": ("t", 1.0), "3": ("u", 2.0)}
    assert worker.tell_running(5.0) == [Running("t", 2, 4.0), Running("u", 1, 3.0)]


def test_what_is_in_flight_waits_or_runs() -> None:
    worker = a_worker()
    worker.prefetched = 2
    worker.running = {"1": ("t", 0.0)}
    assert worker.in_flight == 3


def test_ended_runs_of_names_without_end_are_other_ones() -> None:
    worker = a_worker()
    for number in range(300):
        worker.end(f"t{number}")
    worker.end("t0")
    assert (len(worker.ended), worker.ended["t0"], worker.ended["other"]) == (257, 2, 44)
