"""What the main process of a prefork pool keeps: containers that grow there, looked for only while
its live memory does."""

from __future__ import annotations

from celery_memory_exporter.agent.heap.containers import GrowingContainer, Probe
from celery_memory_exporter.agent.worker.ledger import History
from celery_memory_exporter.common.report import HISTORY

LIVE = HISTORY.index("live_bytes")
#: Growth since the worker started that is worth a search.
LEAST_GROWN_BYTES = 1024 * 1024
#: Each time that the main process is looked at.
WALK_SECONDS = 0.003
MOST_CONTAINERS = 5


class MainSearch:
    """Of one run of one worker. ``history`` is its main process's."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._probe = Probe(MOST_CONTAINERS)

    def work(self) -> None:
        """Goes on with the search, if there is something to be looked for."""
        points = self._history.points
        if points and points[-1][LIVE] - points[0][LIVE] >= LEAST_GROWN_BYTES:
            self._probe.work(WALK_SECONDS)

    def containers(self) -> list[GrowingContainer]:
        """Those that grow, the fastest first."""
        return [each for each in self._probe.containers() if each.growth > 0]
