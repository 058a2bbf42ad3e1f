"""What a part of the benchmark is, and how its figures are shown.

A part takes options and answers with rows. Every figure stands beside its target and the machine
that it comes from, because neither means much alone. A missed target is shown and is no error:
machines differ.
"""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import celery

from celery_memory_exporter.common import procfs

#: Where nobody watches, a progress line is a line of a log.
QUIET_SECONDS = 15.0
WATCHED_SECONDS = 0.2
HEADINGS = ("what", "figure", "ratio", "target", "")
VERDICTS = {True: "met", False: "MISSED", None: ""}


class BenchError(Exception):
    """A part cannot run here; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``met`` is whether it is within its target; ``None`` for a figure without one."""

    what: str
    figure: str
    ratio: str = ""
    target: str = ""
    met: bool | None = None


class Progress:
    """One line on standard error that tells how far a part is."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._next = 0.0

    def tell(self, text: str) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (WATCHED_SECONDS if self._watched else QUIET_SECONDS)
        print(
            f"\r\x1b[K{text}" if self._watched else text,
            end="" if self._watched else "\n",
            file=sys.stderr,
            flush=True,
        )

    def clear(self) -> None:
        self._next = 0.0
        if self._watched:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Options:
    """``rounds`` and ``tasks`` are the part's own defaults unless the command line says
    otherwise. ``least``: of what takes long, so little that the figures mean nothing, to see
    whether the part works at all."""

    rounds: int
    tasks: int = 0
    least: bool = False
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True)
class Part:
    """``rounds`` and ``tasks`` are its defaults; a part without a default does not know the
    option."""

    about: str
    measure: Callable[[Options], list[Row]]
    rounds: int | None = None
    tasks: int | None = None


def spread(values: Sequence[float], form: str = ",.1f") -> str:
    """The median and, in parentheses, the range; of a single value, itself."""
    if len(values) == 1:
        return format(values[0], form)
    median, least, most = (
        format(value, form) for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({least} to {most})"


def machine() -> str:
    """What the figures depend on, in one line."""
    model = re.search(
        r"^model name\s*:\s*(.+)$", procfs.read_text("/proc/cpuinfo") or "", re.MULTILINE
    )
    cores = f"{len(os.sched_getaffinity(0))} cores" + (f" ({model[1]})" if model else "")
    software = f"Python {platform.python_version()}, Celery {celery.__version__}"
    return (
        f"{cores}, {platform.system()} {platform.release()}, {software}; load "
        f"{os.getloadavg()[0]:.2f} at the start"
    )


def table(rows: Sequence[Row]) -> str:
    lines = [
        HEADINGS,
        *((row.what, row.figure, row.ratio, row.target, VERDICTS[row.met]) for row in rows),
    ]
    columns = [column for column in zip(*lines, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = list(zip(*columns, strict=True))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
