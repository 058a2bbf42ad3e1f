"""How pool children tell their main process: memory that both share for each run, and a pipe for
what is rare.

Both are made before the first fork and inherited. Neither ever blocks a child:

* what a child does now and what its runs add up to are plain stores (``shared_map``);
* the pipe is non-blocking; a record (``records``) is at most ``PIPE_BUF`` long, so that the kernel
  writes it whole or not at all. Records are cumulative: one that found the pipe full is sent again
  later.

A task may close descriptors that are not its own, and open a file under the same number: before
each write the child looks whether the descriptor still is the pipe.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

from celery_memory_exporter.agent.worker.records import PIPE_BUF, Record, pack, unpack
from celery_memory_exporter.agent.worker.shared_map import SharedMap

#: What children write between two looks of their main process, many times over.
PIPE_BYTES = 1024 * 1024

_length = struct.Struct("<H")


class Channel:
    """Made by the main process, used by its children."""

    def __init__(self, shared: SharedMap) -> None:
        self.shared = shared
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

    def close(self) -> None:
        """Ends the main process's side; children that still run find the pipe gone and go on."""
        os.close(self._reader)
        os.close(self._writer)
