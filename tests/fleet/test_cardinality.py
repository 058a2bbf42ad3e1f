"""However large a fleet is and however often its workers change: series are bounded, and what is
gone leaves nothing behind.

The figures of a really large one are the benchmark's (``tests/bench/cardinality.py``), whose fleet
this is.
"""

from __future__ import annotations

import dataclasses
import gc

import pytest

from celery_memory_exporter.common.names import OTHER
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.worker_tasks import Task, WorkerTasks
from tests.bench.cardinality import (
    ONE_GROUP,
    RULES,
    THEIR_TASK_TYPES,
    Amounts,
    Scene,
    generation,
    large,
)

SENDERS = dataclasses.replace(RULES, senders=True)
TYPES, WORKERS = 10, 4
#: Of one task type on one queue of one worker: six counters, failures, and two histograms of 15
#: buckets with sum and count.
SERIES_OF_A_ROW = 6 + 1 + 2 * 17


@pytest.mark.parametrize("clients", [1, 100])
def test_clients_make_no_series_of_their_own(clients: int) -> None:
    found = large(Scene(), Amounts(clients=clients, types=TYPES, workers=1)).series()
    assert found["celery_task_sent"] == TYPES


def test_clients_that_are_told_apart_make_one_for_each_task_and_nothing_else() -> None:
    generic = large(Scene(), Amounts(clients=20, types=TYPES, workers=WORKERS)).series()
    told_apart = large(Scene(SENDERS), Amounts(clients=20, types=TYPES, workers=WORKERS)).series()
    assert told_apart - generic == {"celery_task_sent": 19 * TYPES}


def test_clients_beyond_the_cap_are_one() -> None:
    rules = dataclasses.replace(SENDERS, limits=Limits(senders=8))
    scene = large(Scene(rules), Amounts(clients=20, types=TYPES, workers=WORKERS))
    sent = scene.fleet.snapshot(0.0).sent
    assert len(sent) == 9 * TYPES
    assert sum(each.count for each in sent if each.hostname == OTHER) == 12 * TYPES
    assert scene.fleet.snapshot(0.0).dropped["celery_task_sent_total"] == 12 * TYPES


def test_a_worker_makes_a_fixed_number_of_series_for_each_task() -> None:
    def series(types: int, workers: int) -> int:
        found = large(Scene(), Amounts(clients=workers, types=types, workers=workers)).series()
        return sum(
            amount
            for name, amount in found.items()
            if name.startswith("celery_task_") and name != "celery_task_sent"
        )

    assert series(TYPES, 1) == TYPES * SERIES_OF_A_ROW
    assert series(TYPES, WORKERS) == WORKERS * TYPES * SERIES_OF_A_ROW


def test_tasks_beyond_the_cap_are_one() -> None:
    rules = dataclasses.replace(RULES, limits=Limits(tasks_per_worker=5))
    found = large(Scene(rules), Amounts(clients=1, types=40, workers=1)).series()
    assert found["celery_task_received"] == 5 + 1


@pytest.mark.parametrize("agents", [False, True])
def test_a_group_is_as_large_as_one_worker(agents: bool) -> None:
    def series(workers: int) -> dict[str, int]:
        rules = dataclasses.replace(RULES, worker_groups=ONE_GROUP)
        return large(
            Scene(rules), Amounts(clients=workers, types=TYPES, workers=workers), agents=agents
        ).series()

    several = series(WORKERS)
    assert several == series(1)


def kept() -> tuple[int, int]:
    """What is remembered of workers and of tasks, anywhere."""
    gc.collect()
    objects = gc.get_objects()
    return sum(isinstance(each, WorkerTasks) for each in objects), sum(
        isinstance(each, Task) for each in objects
    )


def test_workers_that_come_and_go_leave_nothing_behind() -> None:
    scene, workers = Scene(), 20
    before = kept()
    rests = []
    for number in range(3):
        generation(scene, number, workers)
        assert scene.series()["celery_worker_up"] == workers
        assert scene.fleet.snapshot(scene.now).tasks_in_flight > 0
        scene.expire()
        assert (
            scene.fleet.snapshot(scene.now).workers,
            scene.fleet.snapshot(scene.now).tasks_in_flight,
        ) == ((), 0)
        rests.append(scene.series())
    assert rests[1] == rests[2]
    assert not [
        name
        for name in rests[2]
        if name.startswith(("celery_worker", "celery_queue", "celery_agent"))
    ]
    late = 3 * workers // 2  # done tasks with an event still to come: bounded, whose ever they were
    assert kept() == (before[0], before[1] + late)


def test_clients_that_come_and_go_leave_nothing_behind() -> None:
    scene = Scene(SENDERS)
    large(scene, Amounts(clients=20, types=TYPES, workers=WORKERS))
    scene.expire()
    assert scene.series()["celery_task_sent"] == 0
    large(scene, Amounts(clients=20, types=TYPES, workers=WORKERS))
    assert scene.series()["celery_task_sent"] == 20 * TYPES


def test_what_a_cap_has_kept_out_stays_counted_when_the_worker_goes() -> None:
    scene = Scene(dataclasses.replace(RULES, limits=Limits(tasks_per_worker=THEIR_TASK_TYPES // 2)))
    generation(scene, 0, 2)
    dropped = scene.fleet.snapshot(scene.now).dropped["celery_task_received_total"]
    assert dropped > 0
    scene.expire()
    assert scene.fleet.snapshot(scene.now).dropped["celery_task_received_total"] == dropped


def test_workers_that_are_gone_make_room_though_nobody_scrapes() -> None:
    scene = Scene(dataclasses.replace(RULES, limits=Limits(workers=4)))
    for number in range(3):
        generation(scene, number, 4)
        scene.beat("celery@one-too-many")
        scene.now += RULES.expire_after_seconds + 1
    generation(scene, 3, 4)
    assert {worker.nodename for worker in scene.fleet.snapshot(scene.now).workers} == {
        f"celery@web-3-{each}" for each in range(4)
    }
    assert scene.fleet.snapshot(scene.now).dropped["celery_worker_info"] == 3
