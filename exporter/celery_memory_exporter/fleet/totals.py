"""What workers have counted since they started: values that add up, and can be taken off.

Everything else that a worker tells is its present state, which ends with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import (
    Bounds,
    Histogram,
    LostRuns,
    TaskReport,
    Traffic,
    WorkerReport,
)
from celery_memory_exporter.fleet.sums import scaled, total


@dataclass(frozen=True, slots=True)
class TrafficView:
    """Counts of task messages, with the bounds of their histograms."""

    runtime_seconds: tuple[float, ...]
    queue_wait_seconds: tuple[float, ...]
    rows: tuple[Traffic, ...]


@dataclass(frozen=True, slots=True)
class AgentTotals:
    """What agents count: fields of ``WorkerReport`` by their names there."""

    bounds: Bounds
    tasks: list[TaskReport]
    lost: list[LostRuns]
    children_exited: dict[str, int]
    overhead_seconds: float
    reports_dropped: int
    errors: int
    audits_discarded: dict[str, int]

    @classmethod
    def of(cls, report: WorkerReport) -> AgentTotals:
        """What the report counts, without what it measures."""
        figures: dict[str, Any] = {
            each.name: getattr(report, each.name) for each in dataclasses.fields(cls)
        }
        figures["tasks"] = [_counters_of(task) for task in report.tasks]
        return cls(**figures)


@dataclass(frozen=True, slots=True)
class Totals:
    """Of one worker, or of several in sum: ``a + b``, ``a - b``.

    The histograms of a sum have the bounds of ``b``. Where those of ``a`` are others, its task
    messages are counted without their times, and its memory by task type is left out: all agents of
    a version have the same bounds for that.
    """

    children_started: int | None = None
    #: Of which only ``oom_kills`` is counted.
    cgroup: CgroupMemory = CgroupMemory()
    #: ``None`` where no agent has counted, and where no task message was counted.
    agent: AgentTotals | None = None
    traffic: TrafficView | None = None

    def __add__(self, other: Totals) -> Totals:
        mine = dataclasses.replace(
            self,
            agent=_agent_within(self.agent, other.agent),
            traffic=_traffic_within(self.traffic, other.traffic),
        )
        return total([mine, other])

    def __sub__(self, other: Totals) -> Totals:
        return self + scaled(other, -1)


def _counters_of(task: TaskReport) -> TaskReport:
    """Live memory is measured in processes that are alive now."""
    return dataclasses.replace(
        task, retained_blocks=0.0, retained_native_bytes=None, retained_runs=0, evidence=None
    )


def _agent_within(agent: AgentTotals | None, other: AgentTotals | None) -> AgentTotals | None:
    """As it can be added to ``other``."""
    if agent is None or other is None:
        return agent
    mine, theirs = agent.bounds, other.bounds
    same = (mine.delta_bytes, mine.peak_bytes) == (theirs.delta_bytes, theirs.peak_bytes)
    return agent if same else dataclasses.replace(agent, tasks=[])


def _traffic_within(traffic: TrafficView | None, other: TrafficView | None) -> TrafficView | None:
    """As it can be added to ``other``: where bounds differ the histograms begin anew, the counters
    go on."""
    if traffic is None or other is None:
        return traffic
    bounds = other.runtime_seconds, other.queue_wait_seconds
    if bounds == (traffic.runtime_seconds, traffic.queue_wait_seconds):
        return traffic
    runtime, queue_wait = map(_empty, bounds)
    rows = (
        dataclasses.replace(row, runtime=runtime, queue_wait=queue_wait) for row in traffic.rows
    )
    return dataclasses.replace(traffic, rows=tuple(rows))


def _empty(bounds: Sequence[float]) -> Histogram:
    return Histogram([0] * (len(bounds) + 1), 0.0)
