"""Which tasks run in the main process now, where they run in it (threads, greenlets, solo), written
where the next worker reads it if this one is killed."""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from celery_memory_exporter.agent.worker.shared_map import NAME_BYTES, Place, SharedMap


class RunningHere:
    """Runs beyond the map's places are measured all the same."""

    def __init__(self, shared: SharedMap) -> None:
        self._pid = os.getpid()
        self._free = deque(map(shared.place, range(shared.shape.places)))
        #: By thread or greenlet, each of which has one run at a time.
        self._places: dict[int, Place] = {}

    def begin(self, name: str, rss: int | None) -> None:
        here = threading.get_ident()
        if here not in self._places:
            try:
                self._places[here] = self._free.popleft()
            except IndexError:
                return
        task = name.encode("utf-8", "replace")[:NAME_BYTES]
        self._places[here].write(self._pid, time.time(), rss or 0, 0, task)

    def end(self) -> None:
        place = self._places.pop(threading.get_ident(), None)
        if place is not None:
            place.rest()
            self._free.append(place)

    def forget(self) -> None:
        """In a process that a task forked: what it runs on is none of this one's runs."""
        self._places.clear()
        self._free.clear()
