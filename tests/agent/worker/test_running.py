"""Which tasks run in the main process now."""

from __future__ import annotations

import os
import threading

import pytest

from celery_memory_exporter.agent.worker.running import RunningHere
from celery_memory_exporter.agent.worker.shared_map import Shape, SharedMap


@pytest.fixture
def shared() -> SharedMap:
    return SharedMap.anonymous(Shape.of_one(3, 10))


def running(shared: SharedMap) -> list[str]:
    assert {state.pid for state in shared.states()} <= {os.getpid()}
    return sorted(state.task for state in shared.states() if state.since)


def in_threads(here: RunningHere, names: str, shared: SharedMap) -> list[str]:
    """What runs while each of the tasks does, in a thread of its own."""
    barrier = threading.Barrier(len(names) + 1)

    def run(name: str) -> None:
        here.begin(name, None)
        barrier.wait()
        barrier.wait()
        here.end()

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    barrier.wait()
    seen = running(shared)
    barrier.wait()
    for thread in threads:
        thread.join()
    return seen


def test_runs_of_all_threads_are_told_while_they_go_on(shared: SharedMap) -> None:
    here = RunningHere(shared)
    for _ in range(2):
        assert in_threads(here, "abc", shared) == ["a", "b", "c"]
        assert running(shared) == []


def test_runs_beyond_the_last_place_are_not_told(shared: SharedMap) -> None:
    here = RunningHere(shared)
    assert len(in_threads(here, "abcde", shared)) == 3
    assert in_threads(here, "abc", shared) == ["a", "b", "c"]


def test_a_run_that_never_ended_gives_way_to_the_next_one(shared: SharedMap) -> None:
    here = RunningHere(shared)
    for name in "abcdef":
        here.begin(name, None)
    assert running(shared) == ["f"]


def test_the_end_of_a_run_that_a_fork_took_along_changes_nothing(shared: SharedMap) -> None:
    here = RunningHere(shared)
    here.begin("a", 5)
    here.forget()
    here.end()
    here.begin("b", 5)
    assert running(shared) == ["a"]
