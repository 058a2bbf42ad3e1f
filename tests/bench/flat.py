"""That the agent and the exporter do not leak: a worker runs tasks of many types, and the processes
of both stay as they are.

Tasks are sent while the worker runs them, so that a long run needs no large queue. What comes first
is left out: imports, the first run of each type, Celery's own bounded memory of tasks done. Of the
rest, the first quarter is compared with the last one.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import psutil

from tests.bench.consumers import Ours, running
from tests.bench.result import BenchError, Options, Part, Row
from tests.bench.stage import (
    CHILDREN,
    LEAST_TASKS_PER_SECOND,
    POLL_SECONDS,
    START_SECONDS,
    BenchWorker,
    Load,
    running_redis,
)

WARM_UP_SHARE = 0.1
#: The queue is filled up when it gets this short, by so many tasks.
LEAST_WAITING = PORTION = 500
SAMPLES = 400
#: Growth below one of them is none.
FLAT_SHARE, FLAT_KB = 0.01, 500.0
PER_RUNS = 10_000


@dataclass(frozen=True, slots=True)
class Sample:
    """kB of one process when the worker had done so many runs."""

    runs: int
    resident: float
    #: What no other process shares: of a forked child, also what it has copied since.
    unique: float


Samples = dict[str, list[Sample]]


class Watch:
    """Samples of the processes of one worker, and of the exporter. Where children are not recycled,
    they have to be the same all the time."""

    def __init__(self, worker: BenchWorker, exporter: Ours, *, recycled: bool) -> None:
        self.samples: Samples = {}
        self._worker, self._exporter, self._recycled = worker, exporter, recycled
        self._pids: set[int] = set()

    def look(self, runs: int) -> None:
        """Adds a sample of each process; of children that come and go, of their mean. Raises
        ``BenchError`` when one is gone that should be there."""
        try:
            main, *children = self._worker.tree()
            self._add("main", runs, held_by(main))
            self._add("exporter", runs, held_by(psutil.Process(self._exporter.pid)))
            if self._recycled:
                self._add_mean(children, runs)
            else:
                self._add_each(children, runs)
        except psutil.Error as error:
            raise self._gone(f"{error}") from None

    def _add_each(self, children: list[psutil.Process], runs: int) -> None:
        self._pids |= {each.pid for each in children}
        if len(self._pids) != CHILDREN:
            raise self._gone(f"there have been {len(self._pids)} children instead of {CHILDREN}")
        for number, child in enumerate(children):
            self._add(f"child {number}", runs, held_by(child))

    def _add(self, name: str, runs: int, held: tuple[float, float]) -> None:
        self.samples.setdefault(name, []).append(Sample(runs, *held))

    def _add_mean(self, children: list[psutil.Process], runs: int) -> None:
        held = []
        for child in children:
            with suppress(psutil.NoSuchProcess):  # it has just ended
                held.append(held_by(child))
        if held:
            resident, unique = (statistics.fmean(each) for each in zip(*held, strict=True))
            self._add("children, mean", runs, (resident, unique))

    def _gone(self, what: str) -> BenchError:
        return BenchError(f"a process is gone: {what}\n{self._worker.text[-2000:]}")


def held_by(process: psutil.Process) -> tuple[float, float]:
    """kB: resident, and what no other process shares."""
    memory = process.memory_full_info()
    return memory.rss / 1024, memory.uss / 1024


def run_all(
    worker: BenchWorker, watch: Watch, load: Load, names: list[str], options: Options
) -> None:
    """Runs the tasks, and looks at what each process holds on the way."""
    upcoming = cycle(names)
    warm = int(WARM_UP_SHARE * options.tasks)
    interval = max(1, (options.tasks - warm) // SAMPLES)
    deadline = time.monotonic() + START_SECONDS + options.tasks / LEAST_TASKS_PER_SECOND
    due = warm
    while (done := load.done()) < options.tasks:
        worker.check()
        if time.monotonic() > deadline:
            raise BenchError(
                f"only {done} of {options.tasks} tasks were done in time:\n{worker.text[-2000:]}"
            )
        options.progress.tell(f"flat: {done:,} of {options.tasks:,} tasks done")
        if load.sent - done < LEAST_WAITING and load.sent < options.tasks:
            load.send(list(islice(upcoming, min(PORTION, options.tasks - load.sent))))
        elif done >= due:
            watch.look(done)
            due = done + interval
        else:
            time.sleep(POLL_SECONDS)


def measure(recycling: Sequence[str], options: Options) -> list[Row]:
    """``recycling``: the worker's options by which its children end, if they do."""
    with (
        tempfile.TemporaryDirectory(prefix="celery-memory-bench-") as name,
        running_redis(Path(name)) as broker,
        running(Ours(Path(name), broker), broker) as exporter,
    ):
        from tests.bench import many

        worker = BenchWorker(
            Path(name), broker, "flat", *recycling, agent=True, application=many.__name__
        )
        load = Load(broker, worker)
        watch = Watch(worker, exporter, recycled=bool(recycling))
        try:
            worker.start()
            run_all(worker, watch, load, many.NAMES, options)
        finally:
            worker.ensure_stopped()
    rows = [Row("task types", str(many.TASK_TYPES))]
    for process, found in watch.samples.items():
        rows.append(growth(f"{process}, resident", [(each.runs, each.resident) for each in found]))
        rows.append(growth(f"{process}, unique", [(each.runs, each.unique) for each in found]))
    return rows


def growth(what: str, points: list[tuple[int, float]]) -> Row:
    """From the median of the first quarter to that of the last. ``points`` are runs done and kB."""
    least, most = points[0][0], points[-1][0]
    quarter = (most - least) / 4
    first = [point for point in points if point[0] <= least + quarter]
    last = [point for point in points if point[0] >= most - quarter]
    (runs_before, before), (runs_after, after) = (
        (statistics.fmean(runs for runs, _ in part), statistics.median(size for _, size in part))
        for part in (first, last)
    )
    per_run = (after - before) / (runs_after - runs_before)
    return Row(
        what,
        f"{before:,.0f} → {after:,.0f} kB, {PER_RUNS * per_run:+,.0f} kB per {PER_RUNS:,} runs",
        f"{(after - before) / before:+.2%}",
        f"flat: < {FLAT_SHARE:.0%} or < {FLAT_KB:.0f} kB",
        after - before < max(FLAT_SHARE * before, FLAT_KB),
    )


PART = Part(
    "memory of a worker with the agent, and of the exporter, over many runs",
    partial(measure, ()),
    tasks=100_000,
)
RECYCLED_PART = Part(
    "the same, where children end after a thousand tasks",
    partial(measure, ("--max-tasks-per-child", "1000")),
    tasks=200_000,
)
