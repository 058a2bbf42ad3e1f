"""How many series a large fleet makes, and that series and memory go when its workers go. By
values, without a broker.

The fleet: each client sends each task type, each type has its queue, and each worker runs each
type: as many series as that many workers and types can make. Then generations of workers with new
names, as autoscaling makes them: half of them have the agent, and the others die in the middle of a
task.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import re
import sys
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

import psutil
from prometheus_client import CollectorRegistry

from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.metrics import exposition
from celery_memory_exporter.metrics.collector import FleetCollector
from tests import samples
from tests.bench.heap import in_fresh_process
from tests.bench.result import Options, Part, Row
from tests.bench.scrape import BOUNDS

QUEUES, THEIR_TASK_TYPES = 20, 10
RULES = Rules(samples.BOOT, Limits())
ONE_GROUP = ((re.compile(".*"), "celery@web"),)
#: Of what is held after a generation has gone, beyond what was after the first. Done tasks with an
#: event still to come stay, whose ever they were, some 250 bytes each and 10,000 at most.
FLAT_KIB, FLAT_MIB = 500.0, 5.0


@dataclass(frozen=True, slots=True)
class Amounts:
    """How large the large fleet is, and how many workers each generation has."""

    clients: int = 100
    types: int = 200
    workers: int = 50
    coming_and_going: int = 500


LEAST = Amounts(clients=4, types=3, workers=2, coming_and_going=4)


class Scene:
    """A fleet, and what clients and workers tell it."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.fleet = Fleet(rules)
        self.now = 0.0
        self._expire_after_seconds = rules.expire_after_seconds
        self._identifiers = count()
        self._registry = CollectorRegistry()
        self._registry.register(FleetCollector(lambda: self.fleet.snapshot(self.now)))

    def tell(self, kind: str, **fields: Any) -> None:
        self.fleet.apply_task_event(kind, samples.task_event(kind, **fields), self.now)

    def run(self, worker: str, number: int, *, client: int, done: bool = True) -> None:
        """One run of a task type that a client has sent."""
        identifier, name = str(next(self._identifiers)), task_name(number)
        self.tell(
            "task-sent",
            hostname=f"gen1@pod{client}",
            uuid=identifier,
            name=name,
            queue=f"queue{number % QUEUES}",
        )
        self.tell("task-received", hostname=worker, uuid=identifier, name=name)
        self.tell("task-started", hostname=worker, uuid=identifier, timestamp=1_000.0)
        if done:
            self.tell("task-succeeded", hostname=worker, uuid=identifier)

    def beat(self, worker: str) -> None:
        self.fleet.apply_worker_event(worker, "worker-heartbeat", 0, self.now)

    def report(self, worker: str, pid: int, types: int) -> None:
        names = [(task_name(number), f"queue{number % QUEUES}") for number in range(types)]
        base = samples.report(
            worker=worker,
            instance=samples.instance(pid),
            bounds=BOUNDS,
            queues=[f"queue{number}" for number in range(QUEUES)],
        )
        tasks = [
            fitted(samples.task(name, queue), delta="delta_bytes", peak="peak_bytes")
            for name, queue in names
        ]
        times = {"runtime": "runtime_seconds", "queue_wait": "queue_wait_seconds"}
        traffic = [fitted(samples.traffic(name, queue), **times) for name, queue in names]
        self.fleet.apply_report(
            dataclasses.replace(base, tasks=tasks, traffic=traffic, lost=[], running=[]), self.now
        )

    def expire(self) -> None:
        """Until all that have told something are silent for too long. The next poll of the queues
        forgets them."""
        self.now += self._expire_after_seconds + 1
        self.fleet.apply_queues("", [], self.now)

    def series(self) -> Counter[str]:
        """By family, as they are on the wire."""
        return Counter({metric.name: len(metric.samples) for metric in self._registry.collect()})

    def text(self) -> bytes:
        return exposition.encode(self._registry, "")[0]


def task_name(number: int) -> str:
    return f"shop.tasks.task_{number}"


def fitted(value: Any, **bounds: str) -> Any:
    """With empty histograms of the bounds' sizes."""
    empty = {
        name: dataclasses.replace(getattr(value, name), counts=[1] * (1 + len(getattr(BOUNDS, of))))
        for name, of in bounds.items()
    }
    return dataclasses.replace(value, **empty)


def large(scene: Scene, amounts: Amounts, *, agents: bool = False) -> Scene:
    """Each client has sent each type, and each worker has run each."""
    for worker in range(amounts.workers):
        nodename = f"celery@web{worker}"
        scene.beat(nodename)
        if agents:
            scene.report(nodename, 1_000 * (1 + worker), amounts.types)
        for number in range(amounts.types):
            for client in range(worker, amounts.clients, amounts.workers):
                scene.run(nodename, number, client=client)
    return scene


def generation(scene: Scene, number: int, workers: int) -> None:
    """Workers with names of their own. Those without an agent die while they run a task."""
    for worker in range(workers):
        nodename = f"celery@web-{number}-{worker}"
        scene.beat(nodename)
        if worker % 2:
            scene.report(nodename, 1_000 * (1 + worker), THEIR_TASK_TYPES)
            continue
        for task in range(THEIR_TASK_TYPES):
            scene.run(nodename, task, client=worker)
        scene.run(nodename, 0, client=worker, done=False)
        scene.tell("task-received", hostname=nodename, uuid=f"{nodename}-late", name=task_name(0))
        scene.tell("task-succeeded", hostname=nodename, uuid=f"{nodename}-late")


def figures(generations: int, traced: int, workers: int) -> dict[str, Any]:
    """Series and KiB (allocated if ``traced``, else resident) before, at the height of each
    generation, and after it."""
    if traced:
        tracemalloc.start()
    process = psutil.Process()

    def held() -> float:
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] if traced else process.memory_info().rss) / 1024

    scene = Scene()
    scene.text()
    before = held()
    high, after, heights, rests = [], [], [], []
    for number in range(1 + generations):
        generation(scene, number, workers)
        heights.append(scene.series().total())
        high.append(held())
        scene.expire()
        rests.append(scene.series().total())
        after.append(held())
    return {"before": before, "high": high, "after": after, "heights": heights, "rests": rests}


# --- what it comes to ---------------------------------------------------------------------------


def measure(options: Options) -> list[Row]:
    amounts = LEAST if options.least else Amounts()
    options.progress.tell("cardinality: a large fleet")
    return [*large_rows(amounts), *churn_rows(options, amounts.coming_and_going)]


def large_rows(amounts: Amounts) -> list[Row]:
    types, workers = amounts.types, amounts.workers
    senders, grouped = (
        dataclasses.replace(RULES, senders=True),
        dataclasses.replace(RULES, worker_groups=ONE_GROUP),
    )
    plain = large(Scene(), amounts).series()
    told_apart = large(Scene(senders), amounts).series()
    half = dataclasses.replace(amounts, clients=workers)
    few = large(Scene(), half).series()
    with_agents = large(Scene(), amounts, agents=True).series()
    as_one = large(Scene(grouped), amounts, agents=True).series()
    sent = plain["celery_task_sent"]
    return [
        Row(
            "clients × task types × workers × queues",
            f"{amounts.clients} × {types} × {workers} × {QUEUES}",
        ),
        Row("series without agents", f"{plain.total():,}", per_type(plain, amounts)),
        Row("one exposition of them", exposed(Scene(), half)),
        Row("of them by clients", f"{sent:,}", "", "one a type", sent == types),
        Row("series with half as many clients", f"{few.total():,}", "", "as many", few == plain),
        Row(
            "series with labels.senders",
            f"{told_apart.total():,}",
            f"{told_apart.total() - plain.total():+,}",
        ),
        Row(
            "series with agents",
            f"{with_agents.total():,}",
            f"{per_type(with_agents, amounts)}",
        ),
        Row(
            "the same, in one of worker_groups",
            f"{as_one.total():,}",
            f"{as_one.total() / with_agents.total():.1%}",
        ),
        Row("one exposition of them", exposed(Scene(grouped), half, agents=True)),
    ]


def exposed(scene: Scene, amounts: Amounts, *, agents: bool = False) -> str:
    large(scene, amounts, agents=agents)
    begun = time.perf_counter()
    size = len(scene.text())
    return f"{time.perf_counter() - begun:.1f} s, {size / 1024**2:.1f} MiB"


def per_type(found: Counter[str], amounts: Amounts) -> str:
    return f"{found.total() / amounts.types / amounts.workers:.1f} a type and worker"


def churn_rows(options: Options, workers: int) -> list[Row]:
    options.progress.tell(f"cardinality: {workers} workers come and go, {1 + options.rounds} times")
    traced, resident = (
        in_fresh_process(__name__, options.rounds, each, workers) for each in (1, 0)
    )
    heights, rests = traced["heights"], traced["rests"]
    flat = traced["after"][-1] - traced["after"][0]
    grown = (resident["after"][-1] - resident["after"][0]) / 1024
    return [
        Row(f"series of {workers} workers, then gone", f"{heights[0]:,}, {rests[0]:,}"),
        Row(
            "the same, last generation",
            f"{heights[-1]:,}, {rests[-1]:,}",
            "",
            "the same",
            rests[-1] == rests[0],
        ),
        Row("allocated before, with them, and without", kib(traced, 0)),
        Row(
            "the same, last generation",
            kib(traced, -1),
            f"{flat:+,.0f} KiB",
            f"flat: < {FLAT_KIB:.0f} KiB",
            flat < FLAT_KIB,
        ),
        Row("resident before, with them, and without", kib(resident, 0)),
        Row(
            "the same, last generation",
            kib(resident, -1),
            f"{grown:+,.1f} MiB",
            f"flat: < {FLAT_MIB:.0f} MiB",
            grown < FLAT_MIB,
        ),
    ]


def kib(found: dict[str, Any], which: int) -> str:
    return (
        ", ".join(
            f"{value:,.0f}"
            for value in (found["before"], found["high"][which], found["after"][which])
        )
        + " KiB"
    )


PART = Part(
    "series of a large fleet, and what is left of workers that come and go", measure, rounds=4
)

if __name__ == "__main__":
    print(json.dumps(figures(*map(int, sys.argv[1:]))))
