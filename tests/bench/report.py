"""What one report costs a worker's main process, and how large it is, by the number of task types.

Between two reports some types run in each of the children, which send what these runs came to. That
is taken from the pipe as it comes and does not count here. Time is the process's own: what others
do on the machine does not show.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
from bisect import bisect_right
from typing import Any

from kombu.compression import compress
from kombu.serialization import dumps

from celery_memory_exporter.agent.stats.profile import WIDTH, Column, ProfileRow
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.agent.worker.ledger import Ledger
from celery_memory_exporter.agent.worker.records import (
    ProfileRecord,
    SurvivorsRecord,
    TotalsRecord,
)
from celery_memory_exporter.agent.worker.reporting import Reporter
from celery_memory_exporter.agent.worker.sender import COMPRESSION
from celery_memory_exporter.common.codec import encode
from celery_memory_exporter.common.evidence import AGES
from tests.agent.worker.known import sources
from tests.bench.heap import in_fresh_process
from tests.bench.result import Options, Part, Row

TYPES = (10, 200, 1_000)
CHILDREN = 8
#: One type of so many runs between two reports, or each does.
BUSY, QUIET = 1, 10
#: Runs of a type in each child when it is first reported, and between two reports.
EARLIER_RUNS, RUNS = 30, 2
#: By the number of types, milliseconds with all of them busy; and KiB.
TARGET_MS = {10: 2.0, 200: 20.0, 1_000: 80.0}
TARGET_KIB = {200: 64.0}
COUNTED = (Column.RUNS, Column.AUDITED, Column.SAMPLED)
SIZES = (Column.BLOCKS, Column.NATIVE, Column.SQUARES)
SIZES += (Column.SAMPLED_BYTES, Column.SAMPLED_SQUARES)


class Children:
    """What the children of one worker send. Seeded, so that each run of the benchmark reports the
    same."""

    def __init__(self, types: int) -> None:
        self._random = random.Random(1)
        self._keys: list[TaskKey] = [(f"shop.tasks.task_{each}", "celery") for each in range(types)]
        self._types: dict[tuple[int, TaskKey], Type] = {}
        self.ledger = Ledger(types)
        for child in range(CHILDREN):
            self.ledger.add_child(1_000 + child, child, child)

    def run(self, runs: int, every: int = 1, offset: int = 0) -> None:
        """Every so many-th type runs in each child, from that one on."""
        for pid in self.ledger.children:
            for key in self._keys[offset % every :: every]:
                known = self._types.setdefault((pid, key), Type(self._random))
                for _ in range(runs):
                    known.run()
                self.ledger.apply(TotalsRecord(pid, key, known.totals.to_bytes()))
                self.ledger.apply(ProfileRecord(pid, key, known.profile.to_bytes(), replaces=False))
                survivors = {"dict": 3, "shop.models.Cart": 4 + known.runs}
                self.ledger.apply(SurvivorsRecord(pid, key, survivors))


class Type:
    """A task type in one child: what its runs so far came to."""

    def __init__(self, random: random.Random) -> None:
        self.runs, self.totals, self.profile = 0, TaskTotals(), ProfileRow()
        self._random = random

    def run(self) -> None:
        age = bisect_right(AGES, self.runs) - 1
        self.runs += 1
        self.totals.add_run(0, self._random.random())
        self.totals.add_delta(self._random.choice((0, 4_096, 70_000)))
        self.totals.add_peak(self._random.choice((0, 4_096, 70_000)))
        for column in COUNTED:
            self.profile.figures[age * WIDTH + column] += 1
        for column in SIZES:
            self.profile.figures[age * WIDTH + column] += self._random.randrange(100_000)


def figures(rounds: int, types: int, every: int) -> dict[str, Any]:
    """Milliseconds of each report, and bytes of each message, by step."""
    children = Children(types)
    children.run(EARLIER_RUNS)
    reporter = Reporter(sources(children.ledger))
    found: dict[str, list[float]] = {step: [] for step in ("made", "encoded", "written", "bytes")}
    for number in range(1 + rounds):
        children.run(RUNS, every, number)
        gc.collect()
        begun = time.process_time()
        report = reporter.report(native=True, reports_dropped=0, final=False)
        made = time.process_time()
        encoded = encode(report)
        plain = time.process_time()
        text = compress(dumps(encoded, serializer="json")[2], COMPRESSION)[0]
        written = time.process_time()
        if number:  # the first one is of a worker that has just started
            steps = (made - begun, plain - made, written - plain)
            for step, seconds in zip(found, steps, strict=False):
                found[step].append(1_000 * seconds)
            found["bytes"].append(len(text))
    return found


def measure(options: Options) -> list[Row]:
    rows = []
    for types in TYPES[:1] if options.least else TYPES:
        for every, what in ((BUSY, "all"), (QUIET, "one in ten")):
            options.progress.tell(f"report: {types:,} types, {what} ran")
            found = in_fresh_process(__name__, options.rounds, types, every)
            rows += rows_of(f"{types:,} types × {CHILDREN} children, {what} ran", types, found)
    return rows


def rows_of(what: str, types: int, found: dict[str, list[float]]) -> list[Row]:
    made, encoded, written, size = (statistics.median(each) for each in found.values())
    kib, limit = size / 1024, TARGET_KIB.get(types)
    return [
        Row(
            what,
            f"{made:.1f} ms (worst {max(found['made']):.1f}), encoding {encoded:.1f}, "
            f"writing {written:.1f}",
            "",
            f"≤ {TARGET_MS[types]:.0f} ms",
            made <= TARGET_MS[types],
        ),
        Row(
            "its size, compressed",
            f"{kib:,.0f} KiB",
            "",
            f"≤ {limit:.0f} KiB" if limit else "",
            kib <= limit if limit else None,
        ),
    ]


PART = Part("one report of a worker's main process: CPU time, and size", measure, rounds=8)

if __name__ == "__main__":
    print(json.dumps(figures(*map(int, sys.argv[1:]))))
