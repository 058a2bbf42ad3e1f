"""Figures that add up, in one row.

The figures are an ``array`` of doubles, or a view of doubles in memory that other processes read as
well: adding to one makes no object that stays, so the agent's own book-keeping does not show in the
live blocks that it measures; a whole row goes through the pipe as bytes; rows of several processes
add up column by column.

What the columns are, each kind of row says (``tally``, ``profile``). Whoever adds to a row in each
run of a task binds the column's number to a name, once: to look a member up in its ``IntEnum``
takes some 0.1 µs before Python 3.12, and to add with it is slower than with a plain number.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from typing import ClassVar, TypeAlias, TypeVar

R = TypeVar("R", bound="Row")
Figures: TypeAlias = "array[float] | memoryview[float]"


class Row:
    """One row of zeros, to be added to."""

    __slots__ = ("figures",)
    #: How many columns this kind of row has.
    SIZE: ClassVar[int]

    def __init__(self) -> None:
        self.figures: Figures = array("d", bytes(8 * self.SIZE))

    @classmethod
    def from_bytes(cls: type[R], data: bytes) -> R:
        """The row that ``to_bytes`` was called on."""
        return cls.over(array("d", data))

    @classmethod
    def of(cls: type[R], figures: Iterable[float]) -> R:
        """The row with these figures. Raises ``ValueError`` when they are not as many as it has."""
        row = cls.over(array("d", figures))
        if len(row.figures) != cls.SIZE:
            raise ValueError(f"{len(row.figures)} figures for {cls.SIZE} columns")
        return row

    @property
    def shared(self) -> bool:
        """Whether other processes read the figures as they are."""
        return isinstance(self.figures, memoryview)

    @property
    def used(self) -> int:
        """So many of the columns, the first ones, may be other than zero."""
        return self.SIZE

    def to_bytes(self) -> bytes:
        return self.figures.tobytes()

    def part(self) -> None:
        """From now on the row's figures are its own: nobody else reads them, or adds to them."""
        self.figures = array("d", self.figures)

    def scaled(self: R, factor: float) -> R:
        """A row of its own, with each figure so many times as large."""
        return self.over(array("d", [figure * factor for figure in self.figures]))

    def own(self, start: int, end: int) -> array[float]:
        """A copy of the columns from ``start`` on and before ``end``."""
        figures = self.figures[start:end]
        # To go through a view takes four times as long.
        return array("d", figures.tobytes()) if isinstance(figures, memoryview) else figures

    def add_up(self, rows: Iterable[Row], start: int, end: int) -> None:
        """Sets the columns from ``start`` on and before ``end`` to the sums over ``rows``."""
        figures = [row.own(start, end) for row in rows]
        sums = map(math.fsum, zip(*figures, strict=True))
        self.figures[start:end] = array("d", sums)

    @classmethod
    def over(cls: type[R], figures: Figures) -> R:
        """The row whose figures are these: not a copy of them."""
        row = cls.__new__(cls)
        row.figures = figures
        return row


def sum_of(rows: Iterable[R]) -> R:
    """The sum, column by column, of one row or more: a row of its own."""
    first, *_ = rows = list(rows)
    result = type(first)()
    result.add_up(rows, 0, max([row.used for row in rows]))
    return result
