"""Keeps, for the time after this worker, what it would tell if it could tell it once more.

Each run and each event of a task is in shared memory at once. The rest is written with each report,
and when something leaves the shared memory: rows of children that are gone, and a half of the
journal that is full.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from celery_memory_exporter.agent.guard import Guard, guarded
from celery_memory_exporter.agent.worker.ledger import Ledger
from celery_memory_exporter.agent.worker.requests import RequestCounter
from celery_memory_exporter.agent.worker.shared_map import TakenRow
from celery_memory_exporter.agent.worker.state import State
from celery_memory_exporter.common.codec import encode


class Keeper:
    """Of one run of one worker."""

    def __init__(
        self, guard: Guard, state: State, ledger: Ledger, requests: RequestCounter
    ) -> None:
        self.guard = guard
        self._state = state
        self._ledger = ledger
        self._requests = requests
        self._report: dict[str, Any] | None = None
        self._keeping = threading.Lock()
        requests.on_full = self.keep

    @property
    def wants_report(self) -> bool:
        """Whether nothing has been kept yet of a worker of which something can be."""
        return self._report is None and self._state.kept

    @guarded
    def keep(self, report: dict[str, Any] | None = None, counted: Iterable[TakenRow] = ()) -> None:
        """``report`` is the worker's as it is going to be sent, ``None`` for the last one again
        with what has changed. ``counted``: rows of the shared map that the ledger has as its
        own."""
        if report is not None:
            self._report = report
        # Another thread of the pool may have found the journal full as well.
        if (
            self._report is None
            or not self._state.kept
            or not self._keeping.acquire(blocking=False)
        ):
            return
        try:
            traffic, number = self._requests.turn()
            ledger = self._ledger
            told = {
                **self._report,
                "traffic": [encode(row) for row in traffic],
                "lost": [encode(row) for row in ledger.lost_runs()],
                "children_started": ledger.started,
                "children_exited": dict(ledger.exited),
            }
            self._state.keep(told, ledger.kept(), counted, number)
        finally:
            self._keeping.release()

    @guarded
    def forget(self) -> None:
        """All has been told."""
        self._state.remove()
