"""What the agent costs a worker whose tasks do nothing, against no agent and against ``-E``:
throughput and CPU time.

Each round runs the three variants in random order, and ratios are taken within a round: a machine
that is slower for a minute is so for all three. The queue is full before the worker starts, and the
clock starts when it has done its first tasks. CPU time is of the same span, up to just before the
worker is stopped.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kombu

from celery_memory_exporter.common.codec import decode
from celery_memory_exporter.common.report import WorkerReport
from tests.bench.result import BenchError, Options, Part, Row, spread
from tests.bench.stage import TESTS_APPLICATION, BenchWorker, Load, redis_version, running_redis
from tests.integration.servers import Server

NOOP = f"{TESTS_APPLICATION}.noop"
WARM_UP_TASKS = 500
#: Variant -> has the agent, options of the worker.
VARIANTS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "bare": (False, ()),
    "agent": (True, ()),
    "-E": (False, ("-E",)),
}
#: Agent against the other.
TARGETS = {"bare": 0.97, "-E": 1.4}


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


def run_worker(variant: str, broker: Server, folder: Path, options: Options, where: str) -> Run:
    agent, worker_options = VARIANTS[variant]
    worker = BenchWorker(folder, broker, where.replace(" ", "-"), *worker_options, agent=agent)
    load = Load(broker, worker)
    total = WARM_UP_TASKS + options.tasks

    def tell(done: int) -> None:
        options.progress.tell(f"{where} of {options.rounds}: {done:,} of {total:,} tasks done")

    tell(0)
    load.send([NOOP] * total)
    try:
        worker.start()
        warm = load.wait_for(WARM_UP_TASKS, tell)
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


def measure(options: Options) -> list[Row]:
    runs: dict[str, list[Run]] = {variant: [] for variant in VARIANTS}
    with (
        tempfile.TemporaryDirectory(prefix="celery-memory-bench-") as name,
        running_redis(Path(name)) as broker,
    ):
        for number in range(1, 1 + options.rounds):
            for variant in random.sample(list(VARIANTS), k=len(VARIANTS)):
                where = f"{variant.removeprefix('-')} round {number}"
                runs[variant].append(run_worker(variant, broker, Path(name), options, where))
    return [Row("Redis", redis_version()), *rates(runs), *ratios(runs), *cpu(runs), *costs(runs)]


def rates(runs: dict[str, list[Run]]) -> list[Row]:
    return [
        Row(f"throughput, {name}", f"{spread([run.rate for run in found], ',.0f')} tasks/s")
        for name, found in runs.items()
    ]


def ratios(runs: dict[str, list[Run]]) -> list[Row]:
    rows = []
    for other, target in TARGETS.items():
        found = [
            agent.rate / against.rate
            for agent, against in zip(runs["agent"], runs[other], strict=True)
        ]
        met = statistics.median(found) >= target
        rows.append(
            Row(f"throughput, agent / {other}", "", spread(found, ".3f"), f"≥ {target}", met)
        )
    return rows


def cpu(runs: dict[str, list[Run]]) -> list[Row]:
    rows = []
    for name, found in runs.items():
        main = spread([1_000 * run.main_cpu / run.tasks for run in found], ".2f")
        children = spread([1_000 * run.children_cpu / run.tasks for run in found], ".2f")
        rows.append(Row(f"CPU per 1,000 tasks, {name}", f"main {main} s, children {children} s"))
    return rows


def costs(runs: dict[str, list[Run]]) -> list[Row]:
    """The agent's CPU time per run, by difference within each round and by its own account."""
    pairs = list(zip(runs["agent"], runs["bare"], strict=True))
    main = spread(
        [
            1e6 * (agent.main_cpu / agent.tasks - bare.main_cpu / bare.tasks)
            for agent, bare in pairs
        ],
        "+,.0f",
    )
    children = spread(
        [
            1e6 * (agent.children_cpu / agent.tasks - bare.children_cpu / bare.tasks)
            for agent, bare in pairs
        ],
        "+,.0f",
    )
    told = [1e6 * run.told for run in runs["agent"] if run.told is not None]
    return [
        Row("CPU per task of the agent, main", f"{main} µs"),
        Row("CPU per task of the agent, children", f"{children} µs"),
        Row(
            "wall time per task by its own account",
            f"{spread(told, ',.0f')} µs" if told else "no report came",
        ),
    ]


PART = Part(
    "no-op tasks in a prefork worker: bare, with the agent, with -E", measure, rounds=5, tasks=8_000
)
