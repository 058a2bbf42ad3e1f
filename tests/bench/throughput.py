"""What the agent costs a worker: throughput and CPU time, against no agent and against ``-E``.

Each round runs a setup's variants in random order, and ratios are taken within a round: a machine
that is slower for a minute is so for all of them. The queue is full before the worker starts, and
the clock starts when it has done its first tasks: what is measured is its steady state. CPU time is
of the same span, up to just before the worker is stopped.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import kombu

from celery_memory_exporter.common.codec import decode
from celery_memory_exporter.common.report import WorkerReport
from tests.bench.heap import OBJECTS_VARIABLE
from tests.bench.result import BenchError, Options, Part, Row, spread
from tests.bench.stage import TESTS_APPLICATION, BenchWorker, Load, redis_version, running_redis
from tests.integration.servers import Server

NOOP = f"{TESTS_APPLICATION}.noop"
APPLICATION = "tests.bench.application"
WORK = f"{APPLICATION}.work"
#: Until audits have used up what a young worker may spend on them; and to see that a part works.
WARM_UP_TASKS, LEAST_WARM_UP = 4_000, 500
RECYCLED = ("--max-tasks-per-child", "100")
#: Variant -> has the agent, options of the worker.
VARIANTS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "bare": (False, ()),
    "agent": (True, ()),
    "-E": (False, ("-E",)),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """A kind of worker, and what it runs. ``throughput``: by variant, at least this ratio of the
    agent's to it. ``cpu``: at most this ratio of the agent's CPU time to the bare worker's."""

    name: str
    options: tuple[str, ...] = ()
    task: str = NOOP
    #: In the main process's heap, beside Celery's own.
    objects: int = 0
    #: Of the tasks that are asked for, this share: where each takes longer.
    share: float = 1.0
    throughput: Mapping[str, float] = field(default_factory=lambda: {"bare": 0.97})
    cpu: float | None = None

    @property
    def variants(self) -> list[str]:
        """CPU time is told beside the bare worker's in any case."""
        return ["agent", *dict.fromkeys(["bare", *self.throughput])]


POOLS = [
    Setup("prefork -c 2", throughput={"bare": 0.97, "-E": 1.4}),
    Setup("prefork -c 1", ("-c", "1")),
    Setup("solo", ("-P", "solo")),
]
RECYCLING = [
    Setup("5 ms tasks", RECYCLED, WORK, share=0.25, throughput={}, cpu=1.02),
    Setup("no-op, 0.9 M objects", RECYCLED, objects=900_000, throughput={"bare": 0.9}),
]


@dataclass(frozen=True, slots=True)
class Run:
    """One worker's. CPU seconds are of the main process and of its children together."""

    tasks: int
    seconds: float
    main_cpu: float
    children_cpu: float
    #: What the agent itself says that a run costs, in seconds; ``None`` without an agent.
    told: float | None

    @property
    def rate(self) -> float:
        return self.tasks / self.seconds

    def main_cost(self) -> float:
        """CPU seconds of a task."""
        return self.main_cpu / self.tasks

    def children_cost(self) -> float:
        return self.children_cpu / self.tasks


class Stage(NamedTuple):
    """What all workers have in common."""

    broker: Server
    folder: Path
    options: Options


def run_worker(setup: Setup, variant: str, stage: Stage, where: str) -> Run:
    broker, folder, options = stage
    agent, worker_options = VARIANTS[variant]
    worker = BenchWorker(
        folder,
        broker,
        "".join(filter(str.isalnum, where)),
        *setup.options,
        *worker_options,
        agent=agent,
        application=APPLICATION,
        **{OBJECTS_VARIABLE: str(0 if options.least else setup.objects)},
    )
    load = Load(broker, worker)
    warming = LEAST_WARM_UP if options.least else int(setup.share * WARM_UP_TASKS)
    total = warming + int(setup.share * options.tasks)

    def tell(done: int) -> None:
        options.progress.tell(f"{where} of {options.rounds}: {done:,} of {total:,} tasks done")

    tell(0)
    load.send([setup.task] * total)
    try:
        worker.start()
        warm = load.wait_for(warming, tell)
        if warm == total:
            raise BenchError(f"all {total:,} tasks were done before the clock started: too few")
        begun, (main, children) = time.perf_counter(), worker.cpu_seconds()
        load.wait_for(total, tell)
        seconds, (main_now, children_now) = time.perf_counter() - begun, worker.cpu_seconds()
        told = told_cost(broker, worker) if agent else None
    finally:
        worker.ensure_stopped()
    return Run(total - warm, seconds, main_now - main, children_now - children, told)


def told_cost(broker: Server, worker: BenchWorker) -> float | None:
    """Stops the worker and takes the report that its agent sends in the end."""
    from tests.integration import tasks

    reports: list[WorkerReport] = []
    with tasks.app.connection_for_read(broker.url) as connection:
        queue = tasks.app.events.Receiver(connection, routing_key="memory.#").queue
        with kombu.Consumer(
            connection.default_channel,
            [queue],
            callbacks=[lambda event, _: reports.append(decode(event["report"]))],
            no_ack=True,
            accept=["json"],
        ):
            drain(connection)  # kombu subscribes when it first waits
            worker.ensure_stopped()
            drain(connection)
    if not reports:
        return None
    runs = sum(sum(task.runs.values()) for task in reports[-1].tasks)
    return reports[-1].overhead_seconds / runs if runs else None


def drain(connection: Any) -> None:
    """Handles what is there and what comes within half a second."""
    with suppress(TimeoutError):
        while True:
            connection.drain_events(timeout=0.5)


# --- what it comes to ---------------------------------------------------------------------------


def measure(setups: list[Setup], options: Options) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="celery-memory-bench-") as name,
        running_redis(Path(name)) as broker,
    ):
        rows = [Row("Redis", redis_version())]
        for setup in setups:
            rows += rows_of(setup, rounds(setup, Stage(broker, Path(name), options)))
    return rows


def rounds(setup: Setup, stage: Stage) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {variant: [] for variant in setup.variants}
    for number in range(1, 1 + stage.options.rounds):
        for variant in random.sample(setup.variants, k=len(setup.variants)):
            where = f"{setup.name}, {variant}, round {number}"
            runs[variant].append(run_worker(setup, variant, stage, where))
    return runs


def rows_of(setup: Setup, runs: dict[str, list[Run]]) -> list[Row]:
    rows = [
        Row(f"{setup.name}: {name}", f"{spread([run.rate for run in found], ',.0f')} tasks/s")
        for name, found in runs.items()
    ]
    for other, target in setup.throughput.items():
        found = [agent.rate / against.rate for agent, against in pairs(runs, other)]
        met = statistics.median(found) >= target
        rows.append(
            Row(f"{setup.name}: agent / {other}", "", spread(found, ".3f"), f"≥ {target}", met)
        )
    return [*rows, *cpu(setup, runs)]


def pairs(runs: dict[str, list[Run]], other: str) -> list[tuple[Run, Run]]:
    return list(zip(runs["agent"], runs[other], strict=True))


def cpu(setup: Setup, runs: dict[str, list[Run]]) -> list[Row]:
    """The agent's CPU time, by difference and as a ratio within each round, and what it tells."""
    against = pairs(runs, "bare")
    main, children = (
        spread([1e6 * (cost(agent) - cost(bare)) for agent, bare in against], "+,.0f")
        for cost in (Run.main_cost, Run.children_cost)
    )
    ratios = [
        (agent.main_cost() + agent.children_cost()) / (bare.main_cost() + bare.children_cost())
        for agent, bare in against
    ]
    target = f"≤ {setup.cpu}" if setup.cpu is not None else ""
    met = statistics.median(ratios) <= setup.cpu if setup.cpu is not None else None
    told = [1e6 * run.told for run in runs["agent"] if run.told is not None]
    return [
        Row(f"{setup.name}: CPU, agent / bare", "", spread(ratios, ".3f"), target, met),
        Row(f"{setup.name}: CPU per task, main and children", f"{main} and {children} µs"),
        Row(
            f"{setup.name}: wall time per task by its own account",
            f"{spread(told, ',.0f')} µs" if told else "no report came",
        ),
    ]


PART = Part(
    "no-op tasks in workers of three kinds: bare, with the agent, with -E",
    partial(measure, POOLS),
    rounds=8,
    tasks=8_000,
)
RECYCLING_PART = Part(
    "workers whose children end after a hundred tasks: bare, and with the agent",
    partial(measure, RECYCLING),
    rounds=5,
    tasks=8_000,
)
