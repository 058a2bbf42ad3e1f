"""Whether a task type of this process is worth a deep audit. Only that: the verdict is the
exporter's, over all processes.

Wrong suspicion costs a little of the deep audits' budget, so a cache that still fills may be
suspected; what matters is that a leak's holder is known by the time that the verdict falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from celery_memory_exporter.agent.stats.profile import Column, ProfileRow
from celery_memory_exporter.common.report import AGES, MEAN_BLOCK_BYTES

#: Ages that count: what the first runs leave behind is start-up.
FIRST_AGE = AGES.index(5)
LEAST_AUDITS = 4
LEAST_BYTES = 24.0
LEAST_NATIVE_BYTES = 1024.0
#: A leak in one run of many is not seen by few audits: the runs in between tell, when it is this
#: large.
LEAST_SAMPLED_BYTES, LEAST_SAMPLED_TOTAL = 512.0, 64 * 1024.0
LEAST_PER_RUN = 0.1
LEAST_SHARED_BYTES = 4096.0


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What a run of the type seems to leave behind."""

    bytes: float = 0.0
    #: Descriptors, threads, child processes or shared memory.
    kernel: bool = False

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.kernel


def suspicion_of(row: ProfileRow) -> Suspicion:
    """By the runs that are past start-up."""
    total = row.sums(FIRST_AGE)
    audited = total[Column.AUDITED]
    if audited < LEAST_AUDITS:
        return Suspicion()
    per_run = [value / audited for value in total]
    kernel = (
        max(per_run[Column.FDS], per_run[Column.THREADS], per_run[Column.CHILDREN]) >= LEAST_PER_RUN
    )
    kernel = kernel or per_run[Column.SHARED] >= LEAST_SHARED_BYTES
    return Suspicion(max(_audited_bytes(total), _all_bytes(total)), kernel)


def _audited_bytes(total: list[float]) -> float:
    audited = total[Column.AUDITED]
    mean = (total[Column.BLOCKS] * MEAN_BLOCK_BYTES + total[Column.NATIVE]) / audited
    error = math.sqrt(max(0.0, total[Column.SQUARES] / audited - mean * mean) / audited)
    steps = (
        mean * mean * audited / total[Column.SQUARES] * audited if total[Column.SQUARES] else 0.0
    )
    # The C heap's own caches come and go by some hundred bytes in some runs.
    told = total[Column.BLOCKS] >= audited / 4 or mean >= LEAST_NATIVE_BYTES or steps >= audited / 2
    return mean if told and mean >= LEAST_BYTES and mean > 2 * error else 0.0


def _all_bytes(total: list[float]) -> float:
    runs = total[Column.AUDITED] + total[Column.SAMPLED]
    garbage = (
        total[Column.GARBAGE_BLOCKS] * MEAN_BLOCK_BYTES + total[Column.GARBAGE_NATIVE]
    ) / total[Column.AUDITED]
    size = total[Column.LARGE] + total[Column.SAMPLED_BYTES] - garbage * total[Column.SAMPLED]
    return (
        size / runs if size >= LEAST_SAMPLED_TOTAL and size / runs >= LEAST_SAMPLED_BYTES else 0.0
    )
