"""What runs of one task type left behind, by how many runs of the type its process had seen before:
a profile by age.

A leak leaves as much behind at every age; a cache that fills, an import, a pool of connections
leave something behind when the process is young and nothing later. Ages are the same in every
process, so profiles of children and of generations of children add up column by column, and
recycling hides nothing.

A row is an ``array`` of doubles like the tally's: ``COLUMNS`` figures per age, then those of
audited runs that failed. Figures of audits are exact; those of sampled runs (tier 0) hold garbage
that waits for the collector and the interpreter's free lists: they serve to see much that few runs
leave behind or free.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping

from celery_memory_exporter.agent.stats.tally import Row
from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Profile
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

#: Of task types that run seldom: after so long, and this many runs, start-up is over.
WARM_SECONDS = 60.0
WARM_RUNS_AT_LEAST = 5

#: Per age. ``squares`` are of bytes, for the error of the mean and to tell many steps from one.
COLUMNS = (
    *(
        "runs",
        "audited",
        "blocks",
        "native",
        "squares",
        "fds",
        "threads",
        "children",
        "shared",
        "shared_rises",
    ),
    *(
        "garbage_blocks",
        "garbage_native",
        "large",
        "large_squares",
        "sampled",
        "sampled_bytes",
        "sampled_squares",
    ),
)
WIDTH = len(COLUMNS)
#: Where in a row the figures of runs past start-up begin.
WARM = WIDTH * AGES.index(WARM_RUNS)
RUNS, AUDITED, BLOCKS, NATIVE, SQUARES, FDS, THREADS, CHILDREN, SHARED, SHARED_RISES = range(10)
GARBAGE_BLOCKS, GARBAGE_NATIVE, LARGE, LARGE_SQUARES, SAMPLED, SAMPLED_BYTES, SAMPLED_SQUARES = (
    range(10, WIDTH)
)
#: After all ages: audited runs that did not succeed.
FAILED = WIDTH * len(AGES)
FAILED_BLOCKS, FAILED_NATIVE, SIZE = FAILED + 1, FAILED + 2, FAILED + 3

#: What the interpreter's free lists may take in one run (2,000 tuples of each small size, most of
#: all), more so since audits empty them. They give nothing back in a run that no collection falls
#: into, so fewer blocks tell of memory that a run freed.
FREE_LIST_BYTES = 256 * 1024
DROP_BLOCKS = 16
#: Free lists are not in the C heap, whose own caches are smaller.
LARGE_NATIVE_BYTES = 64 * 1024
#: Object types told per task type.
MAX_TYPES = 40


def is_large(blocks: float, native: float) -> bool:
    """Whether a reading without an audit tells so much from free lists and caches."""
    return (
        blocks * MEAN_BLOCK_BYTES + native >= FREE_LIST_BYTES
        or abs(native) >= LARGE_NATIVE_BYTES
        or blocks <= -DROP_BLOCKS
    )


def new_row() -> Row:
    return array("d", bytes(8 * SIZE))


class Growth:
    """One task type in one process."""

    __slots__ = (
        "_first",
        "_jump",
        "audits",
        "cpu_seconds",
        "next_audit",
        "row",
        "runs",
        "survivors",
    )

    def __init__(self) -> None:
        self.row = new_row()
        self.runs = 0
        self.audits = 0
        #: Of the process during audited runs.
        self.cpu_seconds = 0.0
        #: The run that may be audited next.
        self.next_audit = 0
        #: Objects that outlived audited runs after start-up, by type.
        self.survivors: dict[str, int] = {}
        self._first = time.monotonic()
        self._jump = 0

    def begin(self) -> int:
        """Counts a run; the answer is where its age's figures start in the row."""
        if (
            not self._jump
            and self.runs >= WARM_RUNS_AT_LEAST
            and time.monotonic() - self._first >= WARM_SECONDS
        ):
            self._jump = max(0, WARM_RUNS - self.runs)
        start = WIDTH * (bisect_right(AGES, self.runs + self._jump) - 1)
        self.runs += 1
        self.row[start + RUNS] += 1
        return start

    @property
    def starting(self) -> bool:
        """Whether its runs still are of start-up."""
        return self.runs + self._jump < WARM_RUNS

    @property
    def cpu_per_audit(self) -> float:
        return self.cpu_seconds / max(1, self.audits)

    def add_audit(self, start: int, blocks: float, native: float) -> None:
        self.audits += 1
        row = self.row
        size = blocks * MEAN_BLOCK_BYTES + native
        if is_large(blocks, native):
            row[start + LARGE] += size
            row[start + LARGE_SQUARES] += size**2
        row[start + AUDITED] += 1
        row[start + BLOCKS] += blocks
        row[start + NATIVE] += native
        row[start + SQUARES] += size**2

    def add_kernel(
        self, start: int, fds: float, threads: float, children: float, shared: float
    ) -> None:
        rose = shared > 0
        for column, value in (
            (FDS, fds),
            (THREADS, threads),
            (CHILDREN, children),
            (SHARED, shared),
            (SHARED_RISES, rose),
        ):
            self.row[start + column] += value

    def add_garbage(self, start: int, blocks: float, native: float) -> None:
        self.row[start + GARBAGE_BLOCKS] += blocks
        self.row[start + GARBAGE_NATIVE] += native

    def add_failed(self, blocks: float, native: float) -> None:
        self.row[FAILED] += 1
        self.row[FAILED_BLOCKS] += blocks
        self.row[FAILED_NATIVE] += native

    def add_sample(self, start: int, blocks: float, native: float, *, only_large: bool) -> None:
        """A run that was read without an audit. ``only_large``: where audits tell the rest."""
        row = self.row
        size = (
            blocks * MEAN_BLOCK_BYTES + native
            if is_large(blocks, native) or not only_large
            else 0.0
        )
        row[start + SAMPLED] += 1
        row[start + SAMPLED_BYTES] += size
        row[start + SAMPLED_SQUARES] += size**2

    def add_survivors(self, counts: Mapping[str, int]) -> None:
        for name, count in counts.items():
            if name in self.survivors or len(self.survivors) < MAX_TYPES:
                self.survivors[name] = self.survivors.get(name, 0) + count


def totals(row: Row, first_age: int) -> list[float]:
    """Per column the sum over the ages from this one on."""
    return [sum(row[first_age * WIDTH + column : FAILED : WIDTH]) for column in range(WIDTH)]


def retained(rows: Iterable[Row]) -> tuple[float, float, float]:
    """Blocks and native bytes that runs left behind, and how many runs these figures are of;
    without each process's first run.

    The audited runs of each age stand for all of that age; where there are none, those of the age
    before do. Without audits, what was read counts as blocks.
    """
    blocks = native = behind = 0.0
    for row in rows:
        audits = any(row[WIDTH + AUDITED : FAILED : WIDTH])
        if not audits and not any(row[WIDTH + SAMPLED : FAILED : WIDTH]):
            continue
        means = (0.0, 0.0)
        for age in range(1, len(AGES)):
            start = age * WIDTH
            audited, runs = row[start + AUDITED], row[start + RUNS]
            if audited:
                means = (row[start + BLOCKS] / audited, row[start + NATIVE] / audited)
            elif row[start + SAMPLED] and not audits:
                means = (row[start + SAMPLED_BYTES] / row[start + SAMPLED] / MEAN_BLOCK_BYTES, 0.0)
            blocks += means[0] * runs
            native += means[1] * runs
            behind += runs
    return blocks, native, behind


def to_profile(row: Row) -> Profile:
    """For the report: per column one value per age, without the ages that no process has
    reached."""
    last = max((age for age in range(len(AGES)) if row[age * WIDTH + RUNS]), default=-1)
    values = {
        name: [round(value, 1) for value in row[column : (last + 1) * WIDTH : WIDTH]]
        for column, name in enumerate(COLUMNS)
    }
    return Profile(**values)
