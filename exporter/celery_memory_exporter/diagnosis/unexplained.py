"""Resident memory that rises with a task type's runs, and that no heap which can be read explains:
anonymous maps, pools of Arrow, PyTorch and the like, a C heap whose allocator does not tell.

Each run that has its process to itself tells by how much resident memory was more after it than
before. That alone shows no leak: pages stay with allocators, and are given back between runs. So
the processes' anonymous memory has to rise from floor to floor, by much more than their heaps and
what these keep free; and this type's runs have to account for most of it, in many of them.
"""

from __future__ import annotations

import math
from itertools import pairwise

from celery_memory_exporter.common.report import TaskReport
from celery_memory_exporter.diagnosis.process_growth import (
    LEAST_POINTS,
    rise,
    rises_unexplained,
    unexplained,
)
from celery_memory_exporter.diagnosis.rules import Case

#: Of what the processes grow by, and of what the runs of all types add: this type's part.
LEAST_SHARE = 0.5
#: Standard errors of the mean above zero. A buffer, an arena, a pool of connections are a few runs.
CERTAIN = 4.0


def resident_per_run(case: Case) -> float:
    """Bytes by which a run raises resident memory, beyond what its heaps explain; 0 where that is
    not sure."""
    report = case.worker.report
    if report is None or case.overlaps or not case.runs:
        return 0.0
    grown = sum(unexplained(each) for each in case.processes if rises_unexplained(each))
    added, of_all = net(case.task), sum(max(0.0, net(each)) for each in report.tasks)
    most_of_it = added >= LEAST_SHARE * max(grown, of_all)
    if not grown or not most_of_it or certainty(case.task, report.bounds.delta_bytes) < CERTAIN:
        return 0.0
    return added / case.runs


def net(task: TaskReport) -> float:
    """Bytes of resident memory that its runs added, without what they gave back."""
    return task.growth_bytes - task.release_bytes


def certainty(task: TaskReport, bounds: list[float]) -> float:
    """The mean that a run adds, in standard errors at most: of each run no more is known than that
    it was in its bucket."""
    edges = [4 * bounds[0], *bounds, 4 * bounds[-1]]
    largest = [max(abs(low), abs(high)) for low, high in pairwise(edges)]
    # Most runs add nothing, which is where this bucket ends.
    nothing = bounds.index(0.0) if 0.0 in bounds else None
    squares = sum(
        count * size * size
        for at, (count, size) in enumerate(zip(task.delta.counts, largest, strict=True))
        if at != nothing
    )
    return task.delta.sum / math.sqrt(squares) if squares else 0.0


def hidden(case: Case) -> bool:
    """Whether runs may leave native memory behind that nobody can read here, so that audits which
    see nothing show nothing: resident memory tells, once there is enough of its past."""
    if case.task.retained_native_bytes is not None:
        return False
    return any(
        len(each.history) < LEAST_POINTS or rise(each, "anon_bytes") > 0 for each in case.processes
    )
