"""How long one scrape takes: the snapshot, its metric families, and their text, for ten workers.

Between two scrapes every worker reports, with other figures than before, as between two scrapes of
a fleet that works: nothing that a scrape remembers of the last one helps it more than it would
there.
"""

from __future__ import annotations

import dataclasses
import json
import random
import statistics
import sys
import time
from typing import Any

from prometheus_client import CollectorRegistry

from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.common.report import (
    Bounds,
    Histogram,
    ObjectCount,
    ProcessReport,
    TaskReport,
    Traffic,
    WorkerReport,
)
from celery_memory_exporter.common.traffic import QUEUE_WAIT_SECONDS, RUNTIME_SECONDS
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.metrics import exposition
from celery_memory_exporter.metrics.collector import FleetCollector
from tests import samples
from tests.bench.heap import in_fresh_process
from tests.bench.result import Options, Part, Row

WORKERS, CHILDREN, TASK_TYPES, OBJECT_TYPES = 10, 8, 10, 20
RUNS_BETWEEN_SCRAPES = 5
TIMES = ("runtime", "queue_wait")
TARGET_MS = 50.0
#: What Prometheus sends.
ACCEPT = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"


BOUNDS = Bounds(RUNTIME_SECONDS, QUEUE_WAIT_SECONDS, tally.DELTA_BYTES, tally.PEAK_BYTES)


class Load:
    """The figures that a fleet adds up. Seeded, so that each run of the benchmark renders the same
    text."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self._tasks = {
            (worker, task): self._task(task)
            for worker in range(WORKERS)
            for task in range(TASK_TYPES)
        }

    def _task(self, number: int) -> TaskReport:
        delta, peak = (
            Histogram([0] * (len(each) + 1), 0.0)
            for each in (BOUNDS.delta_bytes, BOUNDS.peak_bytes)
        )
        return samples.task(f"shop.tasks.task_{number}", delta=delta, peak=peak)

    def _row(self, task: TaskReport, sequence: int) -> Traffic:
        runs = RUNS_BETWEEN_SCRAPES * sequence
        times = (
            Histogram([runs] * (len(each) + 1), float(runs))
            for each in (BOUNDS.runtime_seconds, BOUNDS.queue_wait_seconds)
        )
        return samples.traffic(
            task.name,
            received=runs,
            started=runs,
            succeeded=runs,
            **dict(zip(TIMES, times, strict=True)),
        )

    def _run(self, task: TaskReport) -> TaskReport:
        """The task type after a few more runs."""
        histograms: dict[str, Any] = {}
        for name in ("delta", "peak"):
            before: Histogram = getattr(task, name)
            counts = list(before.counts)
            for _ in range(RUNS_BETWEEN_SCRAPES):
                counts[self._random.randrange(len(counts))] += 1
            histograms[name] = Histogram(counts, before.sum + self._random.expovariate(1.0))
        runs = {**task.runs, "succeeded": task.runs["succeeded"] + RUNS_BETWEEN_SCRAPES}
        grown = task.growth_bytes + self._random.expovariate(1e-6)
        return dataclasses.replace(task, runs=runs, growth_bytes=grown, **histograms)

    def _processes(self, worker: int) -> list[ProcessReport]:
        names = ["main", *map(str, range(CHILDREN))]
        return [
            samples.process(
                name,
                1_000 * (worker + 1) + number,
                rss_bytes=self._random.randrange(50, 400) * samples.MIB,
                python_blocks=self._random.randrange(300_000, 3_000_000),
                native_live_bytes=self._random.randrange(samples.MIB, 100 * samples.MIB),
            )
            for number, name in enumerate(names)
        ]

    def report(self, worker: int, sequence: int) -> WorkerReport:
        """The worker after a few more runs of each task type."""
        for task in range(TASK_TYPES):
            self._tasks[worker, task] = self._run(self._tasks[worker, task])
        return samples.report(
            worker=f"celery@web{worker}",
            instance=samples.instance(1_000 * (worker + 1)),
            sequence=sequence,
            bounds=BOUNDS,
            concurrency=CHILDREN,
            processes=self._processes(worker),
            tasks=[self._tasks[worker, task] for task in range(TASK_TYPES)],
            traffic=[self._row(self._tasks[worker, task], sequence) for task in range(TASK_TYPES)],
            objects=[
                ObjectCount(f"shop.models.Kind{kind}", sequence * kind, kind)
                for kind in range(OBJECT_TYPES)
            ],
        )


def figures(rounds: int) -> dict[str, Any]:
    """Milliseconds of the first scrape of this process and of the later ones, and the size of the
    last one's text."""
    fleet = Fleet(Rules(samples.BOOT, Limits()))
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: fleet.snapshot(0.0)))
    load = Load()
    times = []
    text = b""
    for number in range(1 + rounds):
        for worker in range(WORKERS):
            fleet.apply_report(load.report(worker, number), 0.0)
        begun = time.perf_counter()
        text, _ = exposition.encode(registry, ACCEPT)
        times.append(1000 * (time.perf_counter() - begun))
    lines = sum(not line.startswith(b"#") for line in text.splitlines())
    return {"first": times[0], "later": times[1:], "samples": lines, "bytes": len(text)}


def measure(options: Options) -> list[Row]:
    options.progress.tell(f"scrape: {options.rounds} times")
    found = in_fresh_process(__name__, options.rounds)
    median, worst = statistics.median(found["later"]), max(found["later"])
    size = f"{found['samples']:,} samples, {found['bytes'] / 1024:,.0f} KiB"
    return [
        Row(f"{WORKERS} workers × {CHILDREN} children × {TASK_TYPES} task types", size),
        Row("scrape, median", f"{median:.1f} ms", "", f"≤ {TARGET_MS:.0f} ms", median <= TARGET_MS),
        Row(
            f"scrape, worst of {options.rounds}",
            f"{worst:.1f} ms",
            f"{worst / median:.2f} × the median",
        ),
        Row("the exporter's first scrape", f"{found['first']:.1f} ms"),
    ]


PART = Part("time of a full exposition of ten workers", measure, rounds=20)

if __name__ == "__main__":
    print(json.dumps(figures(int(sys.argv[1]))))
