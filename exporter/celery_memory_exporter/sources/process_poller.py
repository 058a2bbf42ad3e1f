"""Reads the local process table again and again, off the scrape path, and feeds the fleet."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from celery_memory_exporter.fleet.facts import Identity, SharedMemory, WorkerProcesses
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.sources import process_table

logger = logging.getLogger(__name__)

SOURCE = "processes"

#: What the kernel may keep from this source, and what gives it back.
DENIED = {
    "processes": (
        "/proc hides other users' processes (hidepid), and no worker is seen: run as the workers' "
        "user, in the group of the mount option gid=, or with CAP_SYS_PTRACE"
    ),
    "shared_memory": (
        "PSS and USS of a worker's process may not be read: they need the workers' user or "
        "CAP_SYS_PTRACE"
    ),
}


class ProcessPoller:
    """A thread that polls. PSS and USS come at ``shared_interval``, and not of processes above
    ``shared_max_rss`` bytes."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        interval: float,
        shared_interval: float,
        shared_max_rss: int,
        read: Callable[[], list[WorkerProcesses]] = process_table.workers,
        others_hidden: Callable[[], bool] = process_table.others_hidden,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._interval = interval
        self._shared_interval = shared_interval
        self._shared_max_rss = shared_max_rss
        self._read = read
        self._others_hidden = others_hidden
        self._monotonic = monotonic
        self._next_shared = 0.0
        self._failing = False
        self._denied = dict.fromkeys(DENIED, False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="processes", daemon=True)

    def start(self) -> None:
        """The first reading is done when this returns, so that the first scrape has it."""
        self.poll()
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def poll(self) -> None:
        """One reading of the table."""
        begun = self._monotonic()
        try:
            table = self._read()
            self._fleet.apply_processes(table, begun)
            # Where workers are seen they are this user's, and what else is hidden is nobody's loss.
            self._deny("processes", not table and self._others_hidden())
            if begun >= self._next_shared:
                self._next_shared = begun + self._shared_interval
                self._fleet.apply_shared_memory(self._shared_memory(table))
        except Exception:  # a source that fails is shown as such, and the others go on
            self._fleet.apply_source(SOURCE, up=False, duration=self._monotonic() - begun)
            if not self._failing:
                logger.exception(
                    "the process table cannot be read; it is tried again every %.0f s",
                    self._interval,
                )
            self._failing = True
            return
        self._failing = False
        self._fleet.apply_source(
            SOURCE, up=True, duration=self._monotonic() - begun, denied=self._denied
        )

    def _deny(self, what: str, denied: bool) -> None:
        if denied and not self._denied[what]:
            logger.warning(DENIED[what])
        self._denied[what] = denied

    def _shared_memory(self, table: list[WorkerProcesses]) -> dict[Identity, SharedMemory]:
        shared = {}
        denied = False
        for worker in table:
            for process in (worker.main, *worker.children):
                if (process.status.rss_bytes or 0) <= self._shared_max_rss:
                    memory = process_table.shared_memory(process.pid)
                    if memory is not None:
                        shared[process.identity] = memory
                    elif process_table.shared_memory_denied(process.pid):
                        denied = True
        self._deny("shared_memory", denied)
        return shared

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            self.poll()
