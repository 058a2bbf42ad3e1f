"""Who is at work in the process: task runs, which may overlap, and the agent itself.

A run's memory figures are its own only while no other run is active, and what it leaves behind is
known only where the agent did not allocate meanwhile either. Each run takes along two counts when
it enters; if they have risen when it leaves, somebody else was there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from celery_memory_exporter.agent.meter.run import Run


class Occupancy:
    """Of one process. Whoever holds ``lock`` knows that no run enters or leaves meanwhile."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._running = self._working = 0
        #: How many runs have entered so far, and how often the agent has been at work.
        self._epoch = self._work = 0

    def enter(self, run: Run) -> None:
        """A run begins. The caller holds ``lock``."""
        # First of all: a soft time limit may arrive at any instruction, and ``leave`` looks at it.
        run.active = True
        self._epoch += 1
        self._running += 1
        run.epoch, run.work = self._epoch, self._work
        run.alone = self._running == 1

    def leave(self, run: Run) -> None:
        """A run is over; to say so again changes nothing. From now on ``run.alone`` tells whether
        no other run was active at any time since it entered. The caller holds ``lock``."""
        if run.active:
            run.active = False
            self._running -= 1
            run.alone = run.alone and self._epoch == run.epoch

    def was_undisturbed(self, run: Run) -> bool:
        """Whether the agent has not been at work since this run entered."""
        return run.work == self._work

    @property
    def idle(self) -> bool:
        """Whether no run is active."""
        return self._running == 0

    @property
    def working(self) -> bool:
        """Whether the agent is at work."""
        return self._working > 0

    def disturb(self) -> None:
        """The runs that are active now are left out of the retained figures."""
        with self.lock:
            self._work += 1

    @contextmanager
    def housekeeping(self) -> Iterator[None]:
        """While the agent itself allocates: runs that overlap it are left out of the retained
        figures."""
        with self.lock:
            self._work += 1
            self._working += 1
        try:
            yield
        finally:
            with self.lock:
                self._working -= 1
