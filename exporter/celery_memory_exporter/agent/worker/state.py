"""What outlives a worker that is killed: its shared map, and beside it the last report with what
the map does not tell. The next worker of the same nodename finds it (``predecessors``).

Both are files of a private folder. The main process holds a lock on the map's file for as long as
it lives, which no child inherits; who gets the lock has found what a dead worker left, and alone.
Without a folder all works on in anonymous memory, and nothing outlives the worker.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import mmap
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.agent.worker.journal import Journal
from celery_memory_exporter.agent.worker.shared_map import Shape, SharedMap, TakenRow
from celery_memory_exporter.agent.worker.state_folder import StateFolder

logger = logging.getLogger(__name__)

MAP, TOLD = ".map", ".json"
#: In the order in which they are removed: a map alone is of a worker that counted nothing.
SUFFIXES = (f"{TOLD}.new", TOLD, MAP)


def prefix_of(nodename: str) -> str:
    """What the names of a worker's files begin with, whatever characters its own name has."""
    return hashlib.sha256(nodename.encode("utf-8", "replace")).hexdigest()[:20] + "."


def begin_of(name: str) -> int:
    """When the worker of these files began; 0 where the name does not tell."""
    try:
        return int(name.rpartition(".")[2], 16)
    except ValueError:
        return 0


def remove(folder: StateFolder, name: str) -> None:
    """A worker's files. Raises ``OSError``."""
    for suffix in SUFFIXES:
        folder.remove(name + suffix)


def open_folder(parent: str | None) -> StateFolder | None:
    """``None`` where there cannot be one, which is logged."""
    try:
        return StateFolder(parent)
    except OSError as error:
        # Unasked for, a container whose file system is read-only has none.
        level = logging.INFO if parent is None else logging.WARNING
        logger.log(level, "Nothing is kept for the time after a kill of this worker: %s", error)
        return None


class State:
    """Of one run of one worker."""

    def __init__(self, folder: StateFolder | None, nodename: str, shape: Shape) -> None:
        self.name = f"{prefix_of(nodename)}{os.getpid()}.{time.time_ns():x}"
        self._folder = folder
        self.shared = self._in_file(shape) or SharedMap.anonymous(shape)
        self.journal = Journal(self.shared.journal)

    @property
    def kept(self) -> bool:
        """Whether anything outlives the worker."""
        return self._folder is not None

    def keep(
        self,
        report: Mapping[str, Any],
        kept: Mapping[TaskKey, TaskTotals],
        counted: Iterable[TakenRow],
        number: int,
    ) -> None:
        """Writes the last report, and what is to be known beside it: totals of task types that are
        in no row of the map, rows of the map that are among these totals already, and the first
        half of the journal whose events are not in the report. Raises ``OSError``."""
        if self._folder is not None:
            told = {
                "report": report,
                "kept": [[*key, list(totals.figures)] for key, totals in kept.items()],
                "counted": [[row.number, row.pid] for row in counted],
                "journal": number,
            }
            self._folder.write(self.name + TOLD, json.dumps(told).encode())

    def remove(self) -> None:
        """The worker has told all there was. Raises ``OSError``."""
        folder, self._folder = self._folder, None
        if folder is not None:
            remove(folder, self.name)

    def _in_file(self, shape: Shape) -> SharedMap | None:
        if self._folder is None:
            return None
        try:
            # Open for as long as the process lives: to close it would give up the lock.
            self._file = self._folder.create(self.name + MAP, shape.size)
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return SharedMap(mmap.mmap(self._file, shape.size), shape)
        except (OSError, ValueError) as error:
            logger.warning("Nothing is kept for the time after a kill of this worker: %s", error)
            with contextlib.suppress(OSError):
                self.remove()
            self._folder = None
            return None
