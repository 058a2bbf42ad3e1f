"""Do the runs of a task type leave something behind? One rule, and how sure each user asks to be.

Three ask: the agent whether a type is worth a deep audit in this process (``SUSPICION``) and
whether this process grows (``PROCESS``), the exporter for the verdict over all processes
(``VERDICT``). They look at the sums of a profile over its ages past start-up. Whether it goes on
for good is another question, which only the exporter asks (``diagnosis.rules``).

Standard library only, because the agent loads it inside the worker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

#: Mean bytes a run: a quarter of a small object.
LEAST_BYTES = 24.0
#: Mean blocks a run: from a quarter on, Python's objects stay. With fewer, bytes are the C heap's,
#: whose own caches come and go by some hundred bytes in some runs: then only more bytes count, or
#: such as at least half of the runs left.
LEAST_BLOCKS, LEAST_NATIVE_BYTES, MOST_RUNS = 0.25, 1024.0, 0.5
#: Mean bytes a run of what few runs leave behind: large beside what free lists and late garbage
#: make of a reading.
LEAST_LARGE_BYTES = 512.0
#: Descriptors, threads or child processes a run.
LEAST_COUNT = 0.1
#: Columns of what the kernel counts.
COUNTS = ("fds", "threads", "children")


class Garbage(Enum):
    """How much garbage is taken off the readings of runs without an audit, which hold garbage that
    waits for the collector. How much a run makes is known from the audited ones."""

    NOTHING = auto()
    #: At most what those readings rose by: they never speak against what audited runs left.
    AS_MUCH_AS_READ = auto()
    ALL = auto()


class Mean(NamedTuple):
    """Mean bytes that a run left behind, its standard error, and over how many runs the growth is
    spread."""

    runs: float
    per_run: float
    error: float
    #: Effective number of runs that grew: sum² / sum of squares. About 1 when one run left
    #: everything, about ``runs`` when all left the same.
    steps: float
    #: Bytes that all ``runs`` left behind.
    total: float

    @property
    def certainty(self) -> float:
        """The mean in standard errors."""
        if self.error > 0:
            return self.per_run / self.error
        return math.copysign(math.inf, self.per_run) if self.per_run else 0.0


NOTHING = Mean(0.0, 0.0, math.inf, 0.0, 0.0)


def mean_of(runs: float, size: float, squares: float) -> Mean:
    """The mean of so many runs, out of the sum of their bytes and the sum of their squares."""
    if runs <= 0:
        return NOTHING
    per_run = size / runs
    variance = max(0.0, squares / runs - per_run * per_run)
    steps = size * size / squares if squares > 0 else 0.0
    return Mean(runs, per_run, math.sqrt(variance / runs), steps, size)


class Sums(NamedTuple):
    """A profile's columns, each added up over some of its ages. The fields are ``Profile``'s, in
    its order, so that a row of the agent's is read as it stands."""

    runs: float
    audited: float
    blocks: float
    native: float
    squares: float
    fds: float
    threads: float
    children: float
    shared: float
    shared_rises: float
    garbage_blocks: float
    garbage_native: float
    large: float
    large_squares: float
    sampled: float
    sampled_bytes: float
    sampled_squares: float

    @property
    def measured(self) -> float:
        """Runs that were audited, or read before and after."""
        return self.audited + self.sampled

    @property
    def size(self) -> float:
        """Bytes that audited runs left behind."""
        return self.blocks * MEAN_BLOCK_BYTES + self.native

    def per_audit(self, column: str) -> float:
        """The column's mean over the audited runs; 0 where there are none."""
        total: float = getattr(self, column)
        return total / self.audited if self.audited else 0.0

    @property
    def garbage(self) -> float:
        """Bytes of reference cycles that an audited run left to the collector."""
        blocks = self.per_audit("garbage_blocks") * MEAN_BLOCK_BYTES
        return blocks + self.per_audit("garbage_native")

    def audited_mean(self) -> Mean:
        """What an audited run leaves behind."""
        return mean_of(self.audited, self.size, self.squares)

    def large_mean(self, garbage: Garbage = Garbage.AS_MUCH_AS_READ) -> Mean:
        """The part of what a run leaves behind that a reading without an audit tells as well: over
        all measured runs."""
        taken_off = 0.0 if garbage is Garbage.NOTHING else self.garbage * self.sampled
        if garbage is Garbage.AS_MUCH_AS_READ:
            taken_off = min(taken_off, max(0.0, self.sampled_bytes))
        size = self.large + self.sampled_bytes - taken_off
        return mean_of(self.measured, size, self.large_squares + self.sampled_squares)

    def mean(self) -> Mean:
        """What a run leaves behind: small amounts by the audited runs, large ones and drops by all
        measured runs."""
        large = self.large_mean()
        if not self.audited:
            return large
        small = mean_of(self.audited, self.size - self.large, self.squares - self.large_squares)
        per_run = small.per_run + large.per_run
        error = math.hypot(small.error, large.error)
        steps = self.audited_mean().steps
        return Mean(self.measured, per_run, error, steps, per_run * self.measured)


@dataclass(frozen=True, slots=True)
class Standard:
    """How sure one asks to be that runs leave something behind. All figures are the least ones."""

    #: Audited runs, without which audits say nothing.
    audits: int
    #: Of the mean: bytes, and standard errors above them; standard errors above zero, and runs that
    #: they are spread over.
    mean_bytes: float
    errors_above: float
    certainty: float
    steps: float
    #: Mean bytes that count although few blocks stay and few runs left them.
    native_bytes: float
    #: Whether the mean takes large amounts from all measured runs, not from audited ones alone.
    by_all_measured: bool
    #: Of much in few runs, by all measured runs: audited ones among them, mean bytes, bytes in sum,
    #: and runs that they are spread over.
    large_audits: int
    large_bytes: float
    large_total: float
    large_steps: float
    garbage: Garbage
    #: Bytes a run of shared memory.
    shared_bytes: float


#: For a deep audit of the type in this process. Wrong suspicion costs a little of the deep audits'
#: budget only, so few audits do; a single step is enough where it is large. The mean has to be more
#: than two standard errors above zero: where two audits of four leave the same, it is exactly two.
SUSPICION = Standard(
    audits=4,
    mean_bytes=LEAST_BYTES,
    errors_above=0.0,
    certainty=math.nextafter(2.0, 3.0),
    steps=0.0,
    native_bytes=LEAST_NATIVE_BYTES,
    by_all_measured=False,
    large_audits=4,
    large_bytes=LEAST_LARGE_BYTES,
    large_total=64 * 1024.0,
    large_steps=0.0,
    garbage=Garbage.ALL,
    shared_bytes=4096.0,
)
#: For a process to count as one that grows. The verdict asks how many of the processes grow, after
#: it is sure of the mean over all of them, so each need not be sure by itself: its own mean may
#: fall below the verdict's by chance. Files in memory are all processes', so none tells of them.
PROCESS = Standard(
    audits=0,
    mean_bytes=16.0,
    errors_above=0.0,
    certainty=0.0,
    steps=0.0,
    native_bytes=0.0,
    by_all_measured=False,
    large_audits=0,
    large_bytes=16.0,
    large_total=0.0,
    large_steps=0.0,
    garbage=Garbage.NOTHING,
    shared_bytes=math.inf,
)
#: For the verdict: beyond doubt, and in several runs. One run that left much is a step, no leak. A
#: block in one run of eleven is none either; of 25 audits, seven see it once in two hundred times.
VERDICT = Standard(
    audits=15,
    mean_bytes=LEAST_BYTES,
    errors_above=1.5,
    certainty=3.0,
    steps=3.0,
    native_bytes=LEAST_NATIVE_BYTES,
    by_all_measured=True,
    large_audits=0,
    large_bytes=LEAST_LARGE_BYTES,
    large_total=128 * 1024.0,
    large_steps=3.0,
    garbage=Garbage.AS_MUCH_AS_READ,
    shared_bytes=1024.0,
)


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """What runs leave behind, by the sums over the ages that count, as far as a standard takes it
    for sure. False when that is nothing.

    Amounts are of one run, 0 for what is not sure.
    """

    sums: Sums
    standard: Standard

    def __bool__(self) -> bool:
        return bool(self.steadily or self.in_steps or self.counts or self.shared)

    @property
    def steadily(self) -> float:
        """Bytes of the process's own memory, by audited runs."""
        sums, standard = self.sums, self.standard
        if sums.audited < standard.audits:
            return 0.0
        mean = sums.mean() if standard.by_all_measured else sums.audited_mean()
        no_cache = (
            sums.blocks >= LEAST_BLOCKS * sums.audited
            or mean.per_run >= standard.native_bytes
            or mean.steps >= MOST_RUNS * sums.audited
        )
        sure = mean.certainty >= standard.certainty and mean.steps >= standard.steps
        enough = mean.per_run >= standard.mean_bytes + standard.errors_above * mean.error
        return mean.per_run if no_cache and sure and enough else 0.0

    @property
    def in_steps(self) -> float:
        """Bytes of the process's own memory where few runs leave much, by all measured runs."""
        standard = self.standard
        if self.sums.audited < standard.large_audits:
            return 0.0
        large = self.sums.large_mean(standard.garbage)
        much = large.per_run >= standard.large_bytes and large.total >= standard.large_total
        return large.per_run if much and large.steps >= standard.large_steps else 0.0

    @property
    def counts(self) -> tuple[str, ...]:
        """Columns of ``COUNTS`` that rise."""
        if self.sums.audited < self.standard.audits:
            return ()
        return tuple([each for each in COUNTS if self.sums.per_audit(each) >= LEAST_COUNT])

    @property
    def shared(self) -> float:
        """Bytes of shared memory."""
        per_run = self.sums.per_audit("shared")
        enough = self.sums.audited >= self.standard.audits and per_run >= self.standard.shared_bytes
        return per_run if enough else 0.0
