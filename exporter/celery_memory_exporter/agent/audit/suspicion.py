"""Whether a task type of this process is worth a deep audit. Only that: the verdict is the
exporter's, over all processes.

Wrong suspicion costs a little of the deep audits' budget, so a cache that still fills may be
suspected; what matters is that a leak's holder is known by the time that the verdict falls.
"""

from __future__ import annotations

from dataclasses import dataclass

from celery_memory_exporter.agent.stats.profile import ProfileRow
from celery_memory_exporter.common.evidence import AGES
from celery_memory_exporter.common.left_behind import SUSPICION, LeftBehind, Sums

#: Ages that count: what the first runs leave behind is start-up.
FIRST_AGE = AGES.index(5)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a run of the type seems to leave behind."""

    bytes: float = 0.0
    #: Descriptors, threads, child processes or shared memory.
    kernel: bool = False

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.kernel


def steady_sums(row: ProfileRow) -> Sums:
    """The row's columns, each added up over the ages that count."""
    return Sums(*row.sums(FIRST_AGE))


def suspicion_of(row: ProfileRow) -> Suspicion:
    """By the runs that are past start-up."""
    left = LeftBehind(steady_sums(row), SUSPICION)
    return Suspicion(max(left.steadily, left.in_steps), bool(left.counts or left.shared))
