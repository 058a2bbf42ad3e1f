"""Figures that add up, in one row.

The figures are an ``array`` of doubles: adding to one makes no object that stays, so the agent's
own book-keeping does not show in the live blocks that it measures; a whole row goes through the
pipe as bytes; rows of several processes add up column by column.

What the columns are, each kind of row says (``tally``, ``profile``). Whoever adds to a row in each
run of a task binds the column's number to a name, once: to look a member up in its ``IntEnum``
takes some 0.1 µs before Python 3.12, and to add with it is slower than with a plain number.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from typing import ClassVar, TypeVar

R = TypeVar("R", bound="Row")

#: So many at once are looked for at the end of a row.
_ZEROS = bytes(8 * 16)


class Row:
    """One row of zeros, to be added to."""

    __slots__ = ("figures",)
    #: How many columns this kind of row has.
    SIZE: ClassVar[int]

    def __init__(self) -> None:
        self.figures: array[float] = array("d", bytes(8 * self.SIZE))

    @classmethod
    def from_bytes(cls: type[R], data: bytes) -> R:
        """The row that ``to_bytes`` was called on."""
        return cls._of(array("d", data))

    def to_bytes(self) -> bytes:
        return self.figures.tobytes()

    def scaled(self: R, factor: float) -> R:
        """A row of its own, with each figure so many times as large."""
        return self._of(array("d", [figure * factor for figure in self.figures]))

    @classmethod
    def _of(cls: type[R], figures: array[float]) -> R:
        row = cls.__new__(cls)
        row.figures = figures
        return row


def sum_of(rows: Iterable[R]) -> R:
    """The sum, column by column, of one row or more: a row of its own."""
    first, *others = rows
    figures = [first.figures, *(row.figures for row in others)]
    # Most rows end with zeros: ages that no process has reached.
    used = max(map(_used, figures))
    result = type(first)()
    columns = zip(*(each[:used] for each in figures), strict=True)
    result.figures[:used] = array("d", map(math.fsum, columns))
    return result


def _used(figures: array[float]) -> int:
    """At most how many there are without the zeros at the end."""
    data = figures.tobytes()
    size = len(data)
    while size and data.endswith(_ZEROS, 0, size):
        size -= len(_ZEROS)
    return size // figures.itemsize
