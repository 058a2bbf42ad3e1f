"""The profile of a task type by age: what its runs left behind, by how many runs of the type their
process had seen before.

A leak leaves as much behind at every age; a cache that fills, an import, a pool of connections
leave something behind when the process is young and nothing later. Ages are the same in every
process, so profiles of children and of generations of children add up column by column, and
recycling hides nothing.

A row has the fields of the report's ``Profile`` for each age, then the figures of audited runs that
failed. Figures of audits are exact; those of sampled runs (tier 0) hold garbage that waits for the
collector and the interpreter's free lists: they serve to see much that few runs leave behind or
free.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from enum import IntEnum, auto
from operator import attrgetter
from typing import NamedTuple

from celery_memory_exporter.agent.stats.row import Figures, Row
from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Profile
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

FIELDS = tuple(field.name for field in dataclasses.fields(Profile))
#: Columns of one age.
WIDTH = len(FIELDS)
AGE_BYTES = 8 * WIDTH
#: Of no age.
NOTHING = Profile(*([] for _ in FIELDS))
_columns = attrgetter(*FIELDS)
#: The age from which on runs are past start-up: its place among ``AGES``.
WARM_AGE = AGES.index(WARM_RUNS)


class Column(IntEnum):
    """A figure of one age: a field of ``Profile``, by its name and at its place."""

    @staticmethod
    def _generate_next_value_(name: str, *_: object) -> int:
        return FIELDS.index(name.lower())

    RUNS = auto()
    AUDITED = auto()
    BLOCKS = auto()
    NATIVE = auto()
    SQUARES = auto()
    FDS = auto()
    THREADS = auto()
    CHILDREN = auto()
    SHARED = auto()
    SHARED_RISES = auto()
    GARBAGE_BLOCKS = auto()
    GARBAGE_NATIVE = auto()
    LARGE = auto()
    LARGE_SQUARES = auto()
    SAMPLED = auto()
    SAMPLED_BYTES = auto()
    SAMPLED_SQUARES = auto()


#: The figures of an age that no run had.
_ZEROS = bytes(AGE_BYTES)


class Failed(IntEnum):
    """A figure of audited runs that did not succeed, at whatever age: behind all ages."""

    AUDITS = WIDTH * len(AGES)
    BLOCKS = AUDITS + 1
    NATIVE = BLOCKS + 1
    END = NATIVE + 1


class Retained(NamedTuple):
    """What runs left behind, and how many runs these figures are of."""

    blocks: float = 0.0
    native_bytes: float = 0.0
    runs: float = 0.0

    @property
    def bytes(self) -> float:
        return self.blocks * MEAN_BLOCK_BYTES + self.native_bytes

    @staticmethod
    def of_all(parts: Iterable[Retained]) -> Retained:
        """By the runs of several processes."""
        return Retained(*map(sum, zip(*parts, strict=True)))


class ProfileRow(Row):
    """Figures by age, of one process or of several. ``row[age, column]`` is one of them; an age is
    told by its place among ``AGES``."""

    __slots__ = ()
    SIZE = Failed.END

    def __getitem__(self, place: tuple[int, Column]) -> float:
        age, column = place
        return self.figures[age * WIDTH + column]

    @property
    def used(self) -> int:
        if any(self.figures[Failed.AUDITS :]):
            return self.SIZE
        data, size = self.to_bytes(), 8 * Failed.AUDITS
        while size and data.endswith(_ZEROS, 0, size):
            size -= len(_ZEROS)
        return size // 8

    def ages(self, column: Column) -> list[float]:
        """This figure at each age."""
        return list(self.figures[column : Failed.AUDITS : WIDTH])

    def sums(self, first_age: int) -> list[float]:
        """By column the sum over the ages from this one on."""
        figures = self.figures[first_age * WIDTH : Failed.AUDITS]
        return [sum(figures[column::WIDTH]) for column in range(WIDTH)]

    @property
    def failed_audits(self) -> float:
        return self.figures[Failed.AUDITS]

    @property
    def failed_bytes(self) -> float:
        """Bytes that audited runs left behind which did not succeed."""
        return self.figures[Failed.BLOCKS] * MEAN_BLOCK_BYTES + self.figures[Failed.NATIVE]

    @property
    def measured(self) -> float:
        """Runs that were audited, or read before and after."""
        return sum(self.ages(Column.AUDITED)) + sum(self.ages(Column.SAMPLED))

    @property
    def reached(self) -> int:
        """How many ages there are without those at the end that had no run."""
        runs, ages = self.figures[: Failed.AUDITS : WIDTH], len(AGES)
        while ages and not runs[ages - 1]:
            ages -= 1
        return ages

    def without_audits(self) -> ProfileRow:
        """A row of the same runs, as if none had been measured."""
        row = ProfileRow()
        for age, number in enumerate(self.ages(Column.RUNS)):
            row.figures[age * WIDTH + Column.RUNS] = number
        return row

    def to_profile(self, before: Profile = NOTHING, same: int = 0) -> Profile:
        """For the report: by figure one value for each age, without the ages that no process has
        reached. So many ages are the ``same`` as when ``before`` was told."""
        told = _rounded(self.figures[same * WIDTH : self.reached * WIDTH])
        columns = enumerate(_columns(before))
        return Profile(*[column[:same] + told[at::WIDTH] for at, column in columns])

    def retained(self) -> Retained:
        """Blocks and native bytes that the runs of one process left behind, without its first run.

        The measured runs of each age stand for all of that age; where there are none, those of the
        age before do.
        """
        blocks = native = behind = 0.0
        means = (0.0, 0.0)
        for runs, measured in _means_by_age(self):
            means = measured or means
            blocks += means[0] * runs
            native += means[1] * runs
            behind += runs
        return Retained(blocks, native, behind)


def same_ages(one: bytes, other: bytes) -> int:
    """How many ages there are, from the youngest on, in which two rows are the same."""
    return bisect_left(
        range(1, len(AGES) + 1),
        True,
        key=lambda ages: one[: ages * AGE_BYTES] != other[: ages * AGE_BYTES],
    )


def tenth(figure: float) -> float:
    """Rounded to a tenth, in a fifth of the time that ``round`` takes for it."""
    return round(10 * figure) / 10


def _rounded(figures: Figures) -> list[float]:
    # Whole numbers are short in a report, and quickly made and written.
    whole: list[float] = list(map(int, figures))
    return whole if whole == figures.tolist() else list(map(tenth, figures))


def _means_by_age(row: ProfileRow) -> Iterator[tuple[float, tuple[float, float] | None]]:
    """Without the first age: runs, and blocks and native bytes that a measured one left behind;
    ``None`` at an age that none was measured at. Nothing where none was at any age.

    Without audits, what was read counts as blocks.
    """
    runs = row.ages(Column.RUNS)[1:]
    while runs and not runs[-1]:  # no process has reached them
        runs.pop()
    audited, sampled = row.ages(Column.AUDITED)[1:], row.ages(Column.SAMPLED)[1:]
    if any(audited):
        blocks, native = row.ages(Column.BLOCKS)[1:], row.ages(Column.NATIVE)[1:]
        for at, run in enumerate(runs):
            audits = audited[at]
            yield run, (blocks[at] / audits, native[at] / audits) if audits else None
    elif any(sampled):
        sizes = row.ages(Column.SAMPLED_BYTES)[1:]
        for at, run in enumerate(runs):
            samples = sampled[at]
            yield run, (sizes[at] / samples / MEAN_BLOCK_BYTES, 0.0) if samples else None
