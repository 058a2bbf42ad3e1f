"""The opening readings of one task run, as the meter keeps them until the run is over."""

from __future__ import annotations

import time

from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals


class Run:
    """The opening readings of one run."""

    __slots__ = (
        *(
            "active",
            "age",
            "alone",
            "audited",
            "begun",
            "blocks",
            "collected",
            "cpu",
            "deep",
            "epoch",
            "growth",
            "key",
            "native",
        ),
        *(
            "opened",
            "outcome",
            "peak_reset",
            "row",
            "rss",
            "sampled",
            "sizes",
            "stashed",
            "work",
        ),
    )

    def __init__(self) -> None:
        self.opened = self.active = self.audited = self.deep = self.stashed = False
        self.begun = time.perf_counter()

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
    #: Whether live memory is read without an audit.
    sampled: bool
    #: What ``collected`` said.
    collected: int
    #: Whether the answer's contents wait in the stash.
    stashed: bool
    #: Of containers, where runs overlap.
    sizes: dict[str, int] | None
    peak_reset: bool
    rss: int | None
    native: int | None
    blocks: int
    outcome: int
