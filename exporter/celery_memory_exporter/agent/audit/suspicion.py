"""Whether a task type of this process is worth a deep audit. Only that: the verdict is the
exporter's, over all processes.

Wrong suspicion costs a little of the deep audits' budget, so a cache that still fills may be
suspected; what matters is that a leak's holder is known by the time that the verdict falls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from celery_memory_exporter.agent.stats import growth
from celery_memory_exporter.agent.stats.tally import Row
from celery_memory_exporter.common.evidence import AGES
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

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


def suspicion_of(row: Row) -> Suspicion:
    """By the runs that are past start-up."""
    total = growth.totals(row, FIRST_AGE)
    audited = total[growth.AUDITED]
    if audited < LEAST_AUDITS:
        return Suspicion()
    per_run = [value / audited for value in total]
    kernel = (
        max(per_run[growth.FDS], per_run[growth.THREADS], per_run[growth.CHILDREN]) >= LEAST_PER_RUN
    )
    kernel = kernel or per_run[growth.SHARED] >= LEAST_SHARED_BYTES
    return Suspicion(max(_audited_bytes(total), _all_bytes(total)), kernel)


def _audited_bytes(total: list[float]) -> float:
    audited = total[growth.AUDITED]
    mean = (total[growth.BLOCKS] * MEAN_BLOCK_BYTES + total[growth.NATIVE]) / audited
    error = math.sqrt(max(0.0, total[growth.SQUARES] / audited - mean * mean) / audited)
    steps = (
        mean * mean * audited / total[growth.SQUARES] * audited if total[growth.SQUARES] else 0.0
    )
    # The C heap's own caches come and go by some hundred bytes in some runs.
    told = total[growth.BLOCKS] >= audited / 4 or mean >= LEAST_NATIVE_BYTES or steps >= audited / 2
    return mean if told and mean >= LEAST_BYTES and mean > 2 * error else 0.0


def _all_bytes(total: list[float]) -> float:
    runs = total[growth.AUDITED] + total[growth.SAMPLED]
    garbage = (
        total[growth.GARBAGE_BLOCKS] * MEAN_BLOCK_BYTES + total[growth.GARBAGE_NATIVE]
    ) / total[growth.AUDITED]
    size = total[growth.LARGE] + total[growth.SAMPLED_BYTES] - garbage * total[growth.SAMPLED]
    return (
        size / runs if size >= LEAST_SAMPLED_TOTAL and size / runs >= LEAST_SAMPLED_BYTES else 0.0
    )
