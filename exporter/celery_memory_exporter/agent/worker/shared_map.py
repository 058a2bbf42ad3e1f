"""Memory that the worker's processes share, and that outlives each of them: what a pool child does
now, and what its runs add up to.

Nobody waits for anybody, and nothing is locked:

* a place, where a process says what it does, and a row, where the runs of one task type add up,
  each have one writer: the process whose pid is in it. A pool slot has its own of both, and its
  children come one after the other;
* the pid is written last when a row is taken, and a row is freed by the main process alone, when
  its owner is gone and counted;
* each figure is a double of its own, stored whole. So whoever reads a row sees each figure as it
  was at some moment, also of a process that was killed: at worst a run whose outcome counts already
  and its memory not yet.

The map is anonymous memory, or a file that the next worker finds (``state``).
"""

from __future__ import annotations

import mmap
import struct
import threading
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from celery_memory_exporter.agent.stats.budget import Account, Entry, new_account
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals

#: Rows of all slots together: 8,192 of them.
MAX_ROW_BYTES = 4 * 1024 * 1024
#: Pool slots told apart; a pool beyond it works, its children's last task stays unknown.
MAX_SLOTS = 1024
#: Places per slot: the successor of a killed child must not write over what its main process has
#: not read yet.
PLACES_PER_SLOT = 4
#: Events of tasks that the main process counted since it wrote all of its counts (``journal``).
JOURNAL_BYTES = 256 * 1024

MAGIC = b"cmemap02"
#: Slots, places, rows of each slot, columns of a row.
_head = struct.Struct("<8sqqqq")
HEAD_BYTES = 64
#: pid, start of the run (Unix time, 0 when idle), RSS at its start, highest RSS, task name.
_place = struct.Struct("<qdqq128s")
PLACE_BYTES = _place.size
_since = struct.Struct("<d")
NAME_BYTES = 128
#: pid, lengths of the names of task and queue in bytes; then the figures, then the names.
_row = struct.Struct("<qii")
_pid = struct.Struct("<q")
SINCE_AT = _pid.size
FIGURE_BYTES = 8 * TaskTotals.SIZE
ROW_BYTES = 512
KEY_BYTES = ROW_BYTES - _row.size - FIGURE_BYTES
#: How many of a slot's rows have ever been taken: there is nothing to be read behind them.
_top = struct.Struct("<q")
ACCOUNT_BYTES = 8 * len(Entry)


@dataclass(frozen=True, slots=True)
class SlotState:
    """What a process was doing last."""

    pid: int
    since: float
    rss_bytes: int
    peak_bytes: int
    task: str


class TakenRow(NamedTuple):
    """A row that has an owner. ``totals`` are the owner's own, which may go on rising."""

    number: int
    slot: int
    pid: int
    key: TaskKey
    totals: TaskTotals


@dataclass(frozen=True, slots=True)
class Shape:
    """How many there are of each; what is where follows from it."""

    slots: int
    #: Of each slot.
    rows: int
    places: int

    @staticmethod
    def of(slots: int, max_tasks: int) -> Shape:
        """For a pool of processes: with a row for each task type of each slot, as far as there is
        room."""
        slots = min(max(1, slots), MAX_SLOTS)
        rows = min(max_tasks, MAX_ROW_BYTES // ROW_BYTES // slots)
        return Shape(slots, rows, slots * PLACES_PER_SLOT)

    @staticmethod
    def of_one(runs: int, max_tasks: int) -> Shape:
        """For one process with so many runs at a time."""
        rows = min(max_tasks, MAX_ROW_BYTES // ROW_BYTES)
        return Shape(1, rows, min(max(1, runs), MAX_SLOTS))

    @property
    def tops_at(self) -> int:
        return HEAD_BYTES + self.places * PLACE_BYTES

    @property
    def accounts_at(self) -> int:
        return self.tops_at + self.slots * _top.size

    @property
    def rows_at(self) -> int:
        return self.accounts_at + self.slots * ACCOUNT_BYTES

    @property
    def journal_at(self) -> int:
        return self.rows_at + self.slots * self.rows * ROW_BYTES

    @property
    def size(self) -> int:
        return self.journal_at + JOURNAL_BYTES


class Place:
    """Where a process says what it does, or one run of several at a time. Called around each run,
    so its methods are calls into C."""

    def __init__(self, memory: mmap.mmap, number: int) -> None:
        self.number = number
        at = HEAD_BYTES + number * PLACE_BYTES
        #: The pid, the start of the run (Unix time, 0 when idle), its RSS, the peak so far, and the
        #: name of its task as bytes.
        self.write = partial(_place.pack_into, memory, at)
        #: The run is over.
        self.rest = partial(_since.pack_into, memory, at + SINCE_AT, 0.0)


class SharedMap:
    """Made by the main process before its first fork."""

    def __init__(self, memory: mmap.mmap, shape: Shape) -> None:
        """``memory`` is as long as the shape says, and all zeros, or what another map left."""
        self.shape = shape
        self._memory = memory
        self._view = memoryview(memory)
        #: Among the threads of one process, whose runs may overlap.
        self._taking = threading.Lock()
        _head.pack_into(memory, 0, MAGIC, shape.slots, shape.places, shape.rows, TaskTotals.SIZE)

    @staticmethod
    def anonymous(shape: Shape) -> SharedMap:
        """Which ends with the worker's last process."""
        return SharedMap(mmap.mmap(-1, shape.size), shape)

    @staticmethod
    def left(memory: mmap.mmap) -> SharedMap:
        """The map that a worker left. Raises ``ValueError`` for anything else."""
        if len(memory) < HEAD_BYTES:
            raise ValueError("too short for a map")
        magic, slots, places, rows, columns = _head.unpack_from(memory)
        shape = Shape(slots, rows, places)
        known = (magic, columns) == (MAGIC, TaskTotals.SIZE) and min(slots, places, rows) >= 0
        if not known or shape.size != len(memory):
            raise ValueError("no map of this version")
        return SharedMap(memory, shape)

    @property
    def journal(self) -> memoryview:
        return self._view[self.shape.journal_at : self.shape.size]

    # --- what a process does now -----------------------------------------------------------------

    def claim(self, slot: int) -> Place | None:
        """Where a new process of this slot may write what it does: a place whose last owner was
        idle, else the oldest."""
        places = self._places(slot)
        oldest = min(places, key=lambda number: self.state(number).since, default=None)
        return None if oldest is None else self.place(oldest)

    def place(self, number: int) -> Place:
        return Place(self._memory, number)

    def take(self, slot: int, pid: int) -> SlotState | None:
        """What a process that died was doing; its place is free afterwards. ``None`` when it never
        said."""
        for place in self._places(slot):
            state = self.state(place)
            if state.pid == pid:
                self.place(place).write(0, 0.0, 0, 0, b"")
                return state
        return None

    def states(self) -> list[SlotState]:
        """What each process was doing whose end nobody has seen."""
        states = map(self.state, range(self.shape.places))
        return [state for state in states if state.pid]

    def state(self, place: int) -> SlotState:
        pid, since, rss, peak, task = _place.unpack_from(
            self._memory, HEAD_BYTES + place * PLACE_BYTES
        )
        return SlotState(pid, since, rss, peak, task.rstrip(b"\0").decode("utf-8", "replace"))

    def _places(self, slot: int) -> range:
        known = 0 <= slot < self.shape.slots
        return range(slot * PLACES_PER_SLOT, (slot + 1) * PLACES_PER_SLOT) if known else range(0)

    def account(self, slot: int) -> Account:
        """Of the agent's time in this slot's processes, one after the other."""
        if not 0 <= slot < self.shape.slots:
            return new_account()
        at = self.shape.accounts_at + slot * ACCOUNT_BYTES
        return self._view[at : at + ACCOUNT_BYTES].cast("d")

    # --- what its runs add up to -----------------------------------------------------------------

    def new_row(self, slot: int, pid: int, key: TaskKey) -> TaskTotals | None:
        """A row of zeros for a process of this slot; ``None`` when there is no room for it."""
        name, queue = (part.encode("utf-8", "replace") for part in key)
        if not 0 <= slot < self.shape.slots or len(name) + len(queue) > KEY_BYTES:
            return None
        first = slot * self.shape.rows
        with self._taking:
            for number in range(first, first + self.shape.rows):
                at = self._row_at(number)
                if not _pid.unpack_from(self._memory, at)[0]:
                    self._raise_top(slot, number - first + 1)
                    end = at + ROW_BYTES - KEY_BYTES + len(name + queue)
                    self._memory[at + ROW_BYTES - KEY_BYTES : end] = name + queue
                    _row.pack_into(self._memory, at, 0, len(name), len(queue))
                    _pid.pack_into(self._memory, at, pid)
                    return self._totals(at)
        return None

    def rows(self, known: Container[tuple[int, int]] = ()) -> Iterator[TakenRow]:
        """Those that have an owner, living or not; without those ``known`` by number and pid."""
        for slot in range(self.shape.slots):
            top = _top.unpack_from(self._memory, self.shape.tops_at + slot * _top.size)[0]
            first = slot * self.shape.rows
            for number in range(first, first + min(top, self.shape.rows)):
                at = self._row_at(number)
                pid, name, queue = _row.unpack_from(self._memory, at)
                if pid and (number, pid) not in known:
                    names = bytes(self._view[at + ROW_BYTES - KEY_BYTES : at + ROW_BYTES])
                    key = _text(names[:name]), _text(names[name : name + queue])
                    yield TakenRow(number, slot, pid, key, self._totals(at))

    def free(self, number: int) -> None:
        """The row's owner is gone, and what was in it is counted elsewhere."""
        at = self._row_at(number)
        self._memory[at + _row.size : at + _row.size + FIGURE_BYTES] = bytes(FIGURE_BYTES)
        _pid.pack_into(self._memory, at, 0)

    def _totals(self, at: int) -> TaskTotals:
        figures = self._view[at + _row.size : at + _row.size + FIGURE_BYTES].cast("d")
        return TaskTotals.over(figures)

    def _row_at(self, number: int) -> int:
        return self.shape.rows_at + number * ROW_BYTES

    def _raise_top(self, slot: int, top: int) -> None:
        at = self.shape.tops_at + slot * _top.size
        if _top.unpack_from(self._memory, at)[0] < top:
            _top.pack_into(self._memory, at, top)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
