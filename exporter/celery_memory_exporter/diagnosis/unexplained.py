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

#: What its runs add, of all that the runs of all types add or give back: where others add and give
#: back much, some of it may be theirs.
OF_ALL = 0.75
#: And of what the processes grow by, at least and at most.
LEAST_OF_GROWTH, MOST_OF_GROWTH = 0.25, 4.0
#: Standard errors of the mean above zero. A buffer, an arena, a pool of connections are a few runs.
CERTAIN = 5.0


def resident_per_run(case: Case) -> float:
    """Bytes by which a run raises resident memory, beyond what its heaps explain; 0 where that is
    not sure."""
    report = case.worker.report
    if report is None or case.overlaps or not case.runs:
        return 0.0
    # The histories last: all types of a worker have the same ones to go through.
    added = net(case.task)
    if added <= 0 or certainty(case.task, report.bounds.delta_bytes) < CERTAIN:
        return 0.0
    if added < OF_ALL * sum(abs(net(each)) for each in report.tasks):
        return 0.0
    grown = sum(unexplained(each) for each in case.processes if rises_unexplained(each))
    is_it = LEAST_OF_GROWTH * grown <= added <= MOST_OF_GROWTH * grown
    return added / case.runs if is_it else 0.0


def net(task: TaskReport) -> float:
    """Bytes of resident memory that its runs added, without what they gave back."""
    return task.growth_bytes - task.release_bytes


def certainty(task: TaskReport, bounds: list[float]) -> float:
    """The mean that a run adds, in standard errors: of each run no more is known than its bucket,
    so it counts as the geometric mean of the bucket's ends."""
    edges = [4 * bounds[0], *bounds, 4 * bounds[-1]]
    squares = sum(
        # Most runs add nothing, which is where a bucket ends.
        0.0 if high == 0 else count * abs(high) * max(abs(low), abs(high) / 4)
        for count, (low, high) in zip(task.delta.counts, pairwise(edges), strict=True)
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
