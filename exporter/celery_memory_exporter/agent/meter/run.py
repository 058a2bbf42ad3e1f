"""The opening readings of one task run, as the meter keeps them until the run is over."""

from __future__ import annotations

import time
from dataclasses import dataclass

from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals


@dataclass(slots=True, init=False, repr=False, eq=False)
class Run:
    """The opening readings of one run; most of them are taken after it is made."""

    #: Whether it is measured: not where the agent failed.
    opened: bool
    key: TaskKey
    row: TaskTotals
    growth: TaskProfile
    #: Place among ``AGES``.
    age: int
    begun: float
    #: The process's CPU seconds before an audited run; those of the run when it is over.
    cpu: float
    #: Whether it is among those running.
    active: bool
    epoch: int
    #: How often the agent had been at work before this run.
    work: int
    alone: bool
    audited: bool
    deep: bool
    #: Whether the audit frees all garbage at both ends.
    confirms: bool
    #: Whether live memory is read without an audit.
    sampled: bool
    #: ``Readings.collected()`` before the run: if it has changed after it, a collection freed
    #: something meanwhile.
    collected: int
    #: Whether the answer's contents wait in the stash.
    stashed: bool
    #: Items of containers before the run, where runs overlap.
    sizes: dict[str, int] | None
    peak_reset: bool
    rss: int | None
    native: int | None
    blocks: int
    outcome: int

    def __init__(self) -> None:
        self.opened = self.active = self.alone = self.stashed = False
        self.audited = self.deep = self.sampled = False
        self.begun = time.perf_counter()
