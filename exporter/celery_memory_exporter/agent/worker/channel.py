"""How pool children tell their main process: a pipe for what they add up, and a slot of shared
memory for what they do now.

Both are made before the first fork and inherited. Neither ever blocks a child:

* the pipe is non-blocking; a record (``records``) is at most ``PIPE_BUF`` long, so that the kernel
  writes it whole or not at all. Records are cumulative: one that found the pipe full is sent again
  later;
* a slot is written with plain stores and read only after its child died, so it survives ``SIGKILL``
  without locks.

A task may close descriptors that are not its own, and open a file under the same number: before
each write the child looks whether the descriptor still is the pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from celery_memory_exporter.agent.worker.records import PIPE_BUF, Record, pack, unpack

#: 2,000 records: what a fast worker writes between two looks of its main process.
PIPE_BYTES = 1024 * 1024
#: Pool slots told apart; a pool beyond it works, its children's last task stays unknown.
MAX_SLOTS = 1024
#: States kept per slot: the successor of a killed child must not write over what its main process
#: has not read yet.
STATES_PER_SLOT = 4

_length = struct.Struct("<H")
#: pid, start of the run (Unix time, 0 when idle), RSS at its start, highest RSS, task name.
_slot = struct.Struct("<qdqq128s")


@dataclass(frozen=True, slots=True)
class SlotState:
    """What a child was doing last."""

    pid: int
    since: float
    rss_bytes: int
    peak_bytes: int
    task: str


class Channel:
    """Made by the main process, used by its children."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            # An unprivileged user at the pipe-user-pages limit keeps the default 64 KiB: records
            # are repeated.
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        stat = os.fstat(self._writer)
        self._identity = stat.st_dev, stat.st_ino
        self._states = mmap.mmap(-1, MAX_SLOTS * STATES_PER_SLOT * _slot.size)
        self._tail = b""

    # --- in a child ------------------------------------------------------------------------------

    def send(self, record: Record) -> bool:
        """Whether the record was taken; ``False`` when the pipe is full or gone. Raises
        ``ValueError`` for a record that is too long to be written at once."""
        body = pack(record)
        if len(body) > PIPE_BUF - _length.size:
            kind = type(record).__name__
            raise ValueError(f"a {kind} record of {len(body)} bytes does not fit the pipe")
        try:
            stat = os.fstat(self._writer)
            if (stat.st_dev, stat.st_ino) != self._identity:
                return False
            os.write(self._writer, _length.pack(len(body)) + body)
        except OSError:
            return False
        return True

    def claim(self, slot: int) -> int | None:
        """Where a new child of this slot may write its state: a place whose last owner was idle,
        else the oldest."""
        if not 0 <= slot < MAX_SLOTS:
            return None
        first = slot * STATES_PER_SLOT
        return min(
            range(first, first + STATES_PER_SLOT), key=lambda place: self._state(place).since
        )

    def write(self, place: int, state: tuple[int, float, int, int], task: str) -> None:
        """``state`` is the pid, the start of the run of ``task`` (Unix time, 0 when idle), its RSS,
        and the peak so far."""
        _slot.pack_into(
            self._states, place * _slot.size, *state, task.encode("utf-8", "replace")[:128]
        )

    # --- in the main process ---------------------------------------------------------------------

    def receive(self) -> Iterator[Record]:
        """All complete records that are there now."""
        while True:
            try:
                chunk = os.read(self._reader, 256 * 1024)
            except BlockingIOError:
                return
            if not chunk:
                return
            data = self._tail + chunk
            start = 0
            while len(data) - start >= _length.size:
                end = start + _length.size + _length.unpack_from(data, start)[0]
                if end > len(data):
                    break
                yield unpack(data[start + _length.size : end])
                start = end
            self._tail = data[start:]

    def take(self, slot: int, pid: int) -> SlotState | None:
        """What a child that died was doing; its place is free afterwards. ``None`` when it never
        said."""
        if not 0 <= slot < MAX_SLOTS:
            return None
        first = slot * STATES_PER_SLOT
        for place in range(first, first + STATES_PER_SLOT):
            state = self._state(place)
            if state.pid == pid:
                self.write(place, (0, 0.0, 0, 0), "")
                return state
        return None

    def _state(self, place: int) -> SlotState:
        pid, since, rss, peak, task = _slot.unpack_from(self._states, place * _slot.size)
        return SlotState(pid, since, rss, peak, task.rstrip(b"\0").decode("utf-8", "replace"))

    def close(self) -> None:
        """Ends the main process's side; children that still run find the pipe gone and go on."""
        os.close(self._reader)
        os.close(self._writer)
        self._states.close()
