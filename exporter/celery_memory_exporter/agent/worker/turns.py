"""Whose evidence goes with a report: a task type's goes when it has changed since it was told, and
at every fourth report all the same, since the exporter may have lost one.

So that not all come at once, each type has its turn at another one of four reports.
"""

from __future__ import annotations

from celery_memory_exporter.agent.stats.tally import TaskKey

TURNS = 4


class Turns:
    """Remembers what was told. A change is a number that rises whenever the evidence changes."""

    def __init__(self) -> None:
        self._told: dict[TaskKey, int] = {}
        self._telling: dict[TaskKey, int] = {}
        self._places: dict[TaskKey, int] = {}
        self._dropped = 0
        self._reports = 0

    def choose(self, changes: dict[TaskKey, int], reports_dropped: int) -> set[TaskKey]:
        """Those of the task types in ``changes`` that are to be told now. ``reports_dropped``: how
        many reports could not be sent so far; what one of them told was not told."""
        if reports_dropped == self._dropped:
            self._told.update(self._telling)
        self._dropped = reports_dropped
        self._reports += 1
        self._telling = {
            key: change
            for key, change in changes.items()
            if change != self._told.get(key) or self._has_turn(key)
        }
        return set(self._telling)

    def _has_turn(self, key: TaskKey) -> bool:
        place = self._places.setdefault(key, len(self._places))
        return (place + self._reports) % TURNS == 0
