"""Reads the local process table again and again, off the scrape path, and feeds the fleet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from celery_memory_exporter.fleet.facts import Identity, SharedMemory, WorkerProcesses
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.sources import process_table
from celery_memory_exporter.sources.poller import Attempt, Poller

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
    """Feeds a fleet, in a thread of its own. PSS and USS come at ``shared_interval``, and not of
    processes above ``shared_max_rss`` bytes."""

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
        self._shared_interval = shared_interval
        self._shared_max_rss = shared_max_rss
        self._read = read
        self._others_hidden = others_hidden
        self._monotonic = monotonic
        self._next_shared = 0.0
        self._denied = dict.fromkeys(DENIED, False)
        self._poller = Poller(
            SOURCE, self._step, self._tell, interval=interval, monotonic=monotonic
        )

    def start(self) -> None:
        """The first reading is done when this returns, so that the first scrape has it."""
        self.poll()
        self._poller.start(after=self._poller.interval)

    def stop(self) -> None:
        self._poller.stop()

    def poll(self) -> None:
        """One reading of the table."""
        self._poller.poll()

    def _step(self) -> None:
        now = self._monotonic()
        table = self._read()
        self._fleet.apply_processes(table, now)
        # Where workers are seen they are this user's, and what else is hidden is nobody's loss.
        self._deny("processes", not table and self._others_hidden())
        if now >= self._next_shared:
            self._next_shared = now + self._shared_interval
            self._fleet.apply_shared_memory(self._shared_memory(table))

    def _tell(self, attempt: Attempt) -> None:
        if attempt.error is None:
            self._fleet.apply_source(SOURCE, up=True, duration=attempt.seconds, denied=self._denied)
            return
        self._fleet.apply_source(SOURCE, up=False, duration=attempt.seconds)
        if not attempt.again:
            logger.error(
                "the process table cannot be read; it is tried again every %.0f s",
                self._poller.interval,
                exc_info=attempt.error,
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
