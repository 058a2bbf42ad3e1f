"""This exporter and Flower side by side on one real Redis: scrapes, CPU per event, memory, and what
each counts under overload.

Each round feeds both the same flood of task events (``tests.bench.flood``), one after the other in
random order, and ratios are taken within a round. Flower is installed for it in a virtual
environment of its own, with our versions of Celery, kombu and redis-py. danihodovic/celery-exporter
is on no package index: its figures were measured earlier on two cores as well, with a flood of the
same kind, and are told as such.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from celery_memory_exporter.fleet.worker_tasks import MISSING_BEATS
from celery_memory_exporter.sources.events import GOOD_SECONDS
from tests.bench.consumers import (
    SETTLE_SECONDS,
    Consuming,
    Flood,
    Flower,
    Make,
    Ours,
    floods,
    flower_version,
    installed_flower,
    running,
)
from tests.bench.flood import EVENTS_PER_TASK, TASK_TYPES, WORKERS
from tests.bench.result import BenchError, Options, Part, Row, spread
from tests.bench.stage import BenchWorker, Load, redis_version, running_redis
from tests.bench.throughput import NOOP
from tests.integration.servers import Server
from tests.integration.waiting import wait_for

#: Of the tasks of the memory's figure: those of one round, and those of a real worker beside the
#: overload.
ROUND_SHARE, REAL_SHARE = 1 / 25, 1 / 50
#: Where a consumer's memory is read first.
FIRST_SHARE = 1 / 4
#: Tasks before the clock starts: of each type at each worker.
WARM_UP_TASKS = 4 * TASK_TYPES * WORKERS
#: Sent at once where nothing may be lost: some 4 MB, and Redis gives a subscriber up that is 32 MB
#: behind.
PORTION = 2_000
PRODUCERS = ("p1", "p2", "p3")
SCRAPES = 20
TARGET_MS = 50.0
#: Half of what celery-exporter takes at least.
TARGET_MICROSECONDS = 145 / 2
FLAT_MIB = 5.0
#: celery-exporter's, measured earlier.
ITS_SCRAPE, ITS_EVENT, ITS_MEMORY = (
    "2,030 ms",
    "145 to 170 µs",
    "51 MB before, 129 MB after 25,000 tasks",
)
ITS_LOSS = "74 % of 480,000 lost, and nothing told"
ITS = "the same, celery-exporter (measured earlier)"
#: A connection is cut when the consumer has computed for so long.
CUT_TASKS, CUT_AFTER_SECONDS = 4_000, 0.1
#: An agent reports every 15 s.
WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Overload:
    """What came of more events than a consumer can take. Counts are of events by kind, and of a
    real worker's tasks."""

    counted: dict[str, int]
    real: int
    told: str


def measure(options: Options) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="celery-memory-bench-") as name,
        running_redis(Path(name)) as broker,
    ):
        folder = Path(name)
        options.progress.tell("peers: installing Flower")
        python = installed_flower(folder)
        both: dict[str, Make] = {"ours": Ours, "Flower": partial(Flower, python=python)}
        per_round, real = (
            max(1, int(ROUND_SHARE * options.tasks)),
            max(1, int(REAL_SHARE * options.tasks)),
        )
        found = Measured(folder, broker, both, options)
        return [
            Row("Redis, Flower", f"{redis_version()}, {flower_version(python)}"),
            *scrape_rows(found.scrapes()),
            *cpu_rows(found.rounds(lambda make: found.cpu(make, per_round)), per_round),
            *memory_rows({name: found.memory(make) for name, make in both.items()}, options.tasks),
            *overload_rows(
                {name: found.overload(name, real) for name in both}, options.tasks, real
            ),
            *cut_rows({name: found.cut(make) for name, make in both.items()}),
        ]


class Measured:
    """Takes the figures; ``both`` make the consumers."""

    def __init__(
        self, folder: Path, broker: Server, both: dict[str, Make], options: Options
    ) -> None:
        self.folder, self.broker, self.both, self.options = folder, broker, both, options

    def rounds(self, take: Callable[[Make], float]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in self.both}
        for number in range(self.options.rounds):
            for name in random.sample(list(self.both), k=len(self.both)):
                self.options.progress.tell(
                    f"peers: round {1 + number} of {self.options.rounds}, {name}"
                )
                found[name].append(take(self.both[name]))
        return found

    def scrapes(self) -> dict[str, list[float]]:
        """Milliseconds, in turns, with two real workers that have the agent."""
        self.options.progress.tell("peers: scrapes beside two workers")
        with ExitStack() as stack:
            workers = [
                BenchWorker(self.folder, self.broker, f"scraped{number}", agent=True)
                for number in range(2)
            ]
            loads = [Load(self.broker, worker) for worker in workers]
            for worker in workers:
                stack.callback(worker.ensure_stopped)
                worker.start()
            ours = stack.enter_context(
                running(Ours(self.folder, self.broker, processes=True), self.broker)
            )
            flower = stack.enter_context(
                running(self.both["Flower"](self.folder, self.broker), self.broker)
            )
            for load in loads:
                load.send([NOOP] * 100)
            wait_for(
                lambda: ours.counted()["succeeded"] == 200,
                "both workers' reports",
                patience=WAIT_SECONDS,
            )
            pairs = [(ours.scrape()[0], flower.scrape()[0]) for _ in range(SCRAPES)]
        return {"ours": [pair[0] for pair in pairs], "Flower": [pair[1] for pair in pairs]}

    def cpu(self, make: Make, tasks: int) -> float:
        """Microseconds per event that was counted."""
        with (
            running(make(self.folder, self.broker), self.broker) as consumer,
            floods(self.broker, "cpu") as (flood,),
        ):
            flood.send(WARM_UP_TASKS)
            consumer.settle()
            begun = consumer.cpu_seconds()
            flood.send(tasks)
            consumer.settle()
            seconds = consumer.cpu_seconds() - begun
            return (
                1e6
                * seconds
                / (sum(consumer.counted().values()) - EVENTS_PER_TASK * (WARM_UP_TASKS + WORKERS))
            )

    def memory(self, make: Make) -> tuple[float, float, float]:
        """MiB after the warm-up, after a part of the tasks, and after all; with never more on the
        way than a consumer can take."""
        tasks = self.options.tasks
        with (
            running(make(self.folder, self.broker), self.broker) as consumer,
            floods(self.broker, "memory") as (flood,),
        ):
            flood.send(WARM_UP_TASKS)
            consumer.settle()
            warm = consumer.resident_mib()
            self._send(consumer, flood, int(FIRST_SHARE * tasks))
            first = consumer.resident_mib()
            self._send(consumer, flood, tasks - int(FIRST_SHARE * tasks))
            return warm, first, consumer.resident_mib()

    def _send(self, consumer: Consuming, flood: Flood, tasks: int) -> None:
        for sent in range(0, tasks, PORTION):
            self.options.progress.tell(
                f"peers: memory of {type(consumer).__name__}, {sent:,} of {tasks:,} tasks"
            )
            flood.send(min(PORTION, tasks - sent))
            wait_for(
                lambda: consumer.backlog() == 0, "the events to be taken", patience=WAIT_SECONDS
            )
        consumer.settle()

    def overload(self, name: str, real: int) -> Overload:
        """Three producers as fast as they can, and a real worker beside them: ours with the agent,
        Flower's with -E."""
        agent = name == "ours"
        worker = BenchWorker(
            self.folder, self.broker, f"real-{agent}", *(() if agent else ("-E",)), agent=agent
        )
        load = Load(self.broker, worker)
        with ExitStack() as stack:
            stack.callback(worker.ensure_stopped)
            consumer = stack.enter_context(
                running(self.both[name](self.folder, self.broker), self.broker)
            )
            producers = stack.enter_context(floods(self.broker, *PRODUCERS))
            load.send([NOOP] * real)
            worker.start()
            load.wait_for(1, lambda _: None)
            for producer in producers:
                producer.begin(self.options.tasks // len(producers))
            lag = self._lag(consumer, producers)
            load.wait_for(real, lambda _: None)
            tell_losses(consumer, producers)
            if agent:
                with suppress(AssertionError):  # then the row tells how many are missing
                    wait_for(
                        lambda: consumer.succeeded(worker.nodename) >= real,
                        "the agent's report",
                        patience=WAIT_SECONDS,
                    )
            counted = {
                kind: count - len(PRODUCERS) * WORKERS
                for kind, count in consumer.counted(worker.nodename).items()
            }
            return Overload(counted, consumer.succeeded(worker.nodename), told_by(consumer, lag))

    def _lag(self, consumer: Consuming, producers: list[Flood]) -> float:
        """Waits until all is published and taken; the answer is the worst lag that was told, in
        seconds."""
        worst, deadline = 0.0, time.monotonic() + SETTLE_SECONDS
        while any(producer.busy(1.0) for producer in producers) or consumer.backlog() != 0:
            behind = (consumer.backlog() or 0) >> 20
            self.options.progress.tell(
                f"peers: overload of {type(consumer).__name__}, {behind} MiB behind"
            )
            if isinstance(consumer, Ours):
                worst = max(
                    worst, consumer.value("celery_memory_exporter_event_lag_seconds") or 0.0
                )
            if time.monotonic() > deadline:
                raise BenchError(
                    f"the overload is not over after {SETTLE_SECONDS:.0f} "
                    f"s:\n{consumer.text[-2000:]}"
                )
        return worst

    def cut(self, make: Make) -> tuple[int, str]:
        """Starts that were not counted, and what is told of them, when the connection is cut in the
        middle of a flood."""
        self.options.progress.tell("peers: a connection is cut")
        with (
            running(make(self.folder, self.broker), self.broker) as consumer,
            floods(self.broker, "cut") as producers,
        ):
            wait_for(
                lambda: time.monotonic() - consumer.attached > GOOD_SECONDS,
                "its connection to be an old one",
            )
            begun = consumer.cpu_seconds()
            producers[0].begin(CUT_TASKS)
            wait_for(lambda: consumer.cpu_seconds() > begun + CUT_AFTER_SECONDS, "the flood")
            consumer.cut()
            self._lag(consumer, producers)
            tell_losses(consumer, producers)
            return CUT_TASKS + WORKERS - consumer.counted()["started"], told_by(consumer)


def tell_losses(consumer: Consuming, producers: list[Flood]) -> None:
    """What is missing at several heartbeats in a row was lost."""
    consumer.settle()
    for _ in range(MISSING_BEATS + 1):
        for producer in producers:
            producer.beat()
    consumer.settle()


def told_by(consumer: Consuming, lag: float | None = None) -> str:
    if not isinstance(consumer, Ours):
        return "nothing"
    lost = consumer.value("celery_memory_exporter_events_lost_total") or 0
    reconnects = consumer.value("celery_memory_exporter_broker_reconnects_total") or 0
    late = "" if lag is None else f"; a lag of {lag:.1f} s"
    return f"{lost:,.0f} starts lost; {reconnects:.0f} reconnects{late}"


# --- what it comes to ---------------------------------------------------------------------------


def ratio(found: dict[str, list[float]]) -> str:
    ratios = [flower / ours for ours, flower in zip(found["ours"], found["Flower"], strict=True)]
    return f"{spread(ratios)} × ours"


def scrape_rows(found: dict[str, list[float]]) -> list[Row]:
    return [
        Row(
            f"scrape beside two workers, {SCRAPES} times, ours",
            f"{spread(found['ours'])} ms",
            "",
            f"≤ {TARGET_MS:.0f} ms",
            median(found["ours"]) <= TARGET_MS,
        ),
        Row(
            "the same, Flower (no queues, no memory)", f"{spread(found['Flower'])} ms", ratio(found)
        ),
        Row(ITS, ITS_SCRAPE),
    ]


def cpu_rows(found: dict[str, list[float]], tasks: int) -> list[Row]:
    figures = {name: f"{spread(values, '.0f')} µs" for name, values in found.items()}
    met = median(found["ours"]) <= TARGET_MICROSECONDS
    return [
        Row(
            f"CPU per event of {tasks:,} tasks, ours",
            figures["ours"],
            "",
            f"≤ {TARGET_MICROSECONDS:.1f} µs",
            met,
        ),
        Row("the same, Flower", figures["Flower"], ratio(found)),
        Row(ITS, ITS_EVENT),
    ]


def memory_rows(found: dict[str, tuple[float, float, float]], tasks: int) -> list[Row]:
    rows = []
    for name, (warm, first, last) in found.items():
        what = f"resident, warm, after {int(FIRST_SHARE * tasks):,} and {tasks:,} tasks, {name}"
        figure = f"{warm:.1f}, {first:.1f} and {last:.1f} MiB"
        flat = (
            (f"flat: < {FLAT_MIB:.0f} MiB", last - first < FLAT_MIB)
            if name == "ours"
            else ("", None)
        )
        rows.append(Row(what, figure, f"{last - warm:+.1f} MiB", *flat))
    return [*rows, Row(ITS, ITS_MEMORY)]


def overload_rows(found: dict[str, Overload], tasks: int, real: int) -> list[Row]:
    rows = []
    sent = EVENTS_PER_TASK * (tasks // len(PRODUCERS)) * len(PRODUCERS)
    for name, each in found.items():
        events, started = (
            sum(each.counted.values()),
            sent // EVENTS_PER_TASK - each.counted["started"],
        )
        rows += [
            Row(
                f"overload, events counted of {sent:,}, {name}",
                f"{events:,}",
                f"{1 - events / sent:.0%} lost",
            ),
            Row(f"overload, what {name} tells of {started:,} lost starts", each.told),
        ]
        what = f"overload, tasks of a real worker, {'agent' if name == 'ours' else '-E'}, {name}"
        target = ("all", each.real == real) if name == "ours" else ("", None)
        rows.append(Row(what, f"{each.real:,} of {real:,}", "", *target))
    return [*rows, Row(ITS, ITS_LOSS)]


def cut_rows(found: dict[str, tuple[int, str]]) -> list[Row]:
    return [
        Row(
            f"connection cut among {CUT_TASKS:,} tasks, what {name} tells of {lost:,} lost starts",
            told,
        )
        for name, (lost, told) in found.items()
    ]


PART = Part(
    "this exporter and Flower side by side on one Redis, fed with the same events",
    measure,
    rounds=5,
    tasks=100_000,
)
