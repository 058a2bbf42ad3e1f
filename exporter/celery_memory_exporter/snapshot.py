"""What the fleet answers with: plain, frozen values at one moment, for metrics and whatever else shows them."""

from __future__ import annotations

from dataclasses import dataclass

from celery_memory_exporter.processes import SharedMemory
from celery_memory_exporter.procfs import CgroupMemory
from celery_memory_exporter.report import ProcessReport, WorkerReport


@dataclass(frozen=True, slots=True)
class ProcessView:
    """One process of a worker, now."""

    figures: ProcessReport
    shared: SharedMemory | None = None


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker, now. ``report`` is the last one, for its counters; ``live`` tells whether its state still holds."""

    nodename: str
    up: bool
    live: bool
    report: WorkerReport | None
    active_tasks: int | None
    processes: tuple[ProcessView, ...]
    cgroup: CgroupMemory
    children_started: int | None

    @property
    def hostname(self) -> str:
        """What the best-known exporter calls hostname: the nodename after the ``@``."""
        return self.nodename.partition("@")[2] or self.nodename


@dataclass(frozen=True, slots=True)
class SourceView:
    """How a source of ours is doing."""

    up: bool
    duration_seconds: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that can be shown, at one moment."""

    workers: tuple[WorkerView, ...]
    sources: dict[str, SourceView]
    reports_received: int
    reports_rejected: dict[str, int]
    events_received: dict[str, int]
    event_lag_seconds: float | None
    broker_reconnects: int
    dropped: dict[str, int]
