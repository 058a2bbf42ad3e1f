"""What the fleet answers with: plain, frozen values at one moment, for metrics and whatever else
shows them."""

from __future__ import annotations

from dataclasses import dataclass, field

from celery_memory_exporter.common.evidence import Estimate
from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import ProcessReport, Running, WorkerReport
from celery_memory_exporter.fleet.facts import QueueReading, SharedMemory
from celery_memory_exporter.fleet.totals import Totals, TrafficView


@dataclass(frozen=True, slots=True)
class ProcessView:
    """One process of a worker, now."""

    figures: ProcessReport
    shared: SharedMemory | None = None


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue, now. ``workers`` and their ``processes`` consume it."""

    broker: str
    reading: QueueReading
    workers: int
    processes: int


@dataclass(frozen=True, slots=True)
class SentView:
    """How often a task was sent by clients, and from where."""

    broker: str
    name: str
    hostname: str
    queue: str
    count: int


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker, now. ``report`` is the last one, for its counters; ``live`` tells whether its
    state still holds."""

    #: The one that it is shown by: its own, or its group's.
    nodename: str
    up: bool
    live: bool
    report: WorkerReport | None
    processes: tuple[ProcessView, ...]
    cgroup: CgroupMemory
    children_started: int | None = None
    broker: str = ""
    pool: str | None = None
    concurrency: int | None = None
    active_tasks: int | None = None
    prefetched_tasks: int | None = None
    running: tuple[Running, ...] = ()
    traffic: TrafficView | None = None
    #: Events of a worker without an agent that did not get here.
    events_lost: int | None = None
    #: Of its task types' resident memory a run, by least squares, where no agent measures it.
    estimates: dict[str, Estimate] = field(default_factory=dict)
    #: Since something told of it: a report, an event, the process table, an answer.
    age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class GroupView:
    """The workers that are shown as one, of which there is at least one. A worker that belongs to
    no group is alone in its own."""

    members: tuple[WorkerView, ...]
    #: What has to be added to what the members count now, since others have counted and are gone;
    #: it may be below zero. ``None`` of a worker that belongs to no group.
    kept: Totals | None = None

    @property
    def broker(self) -> str:
        return self.members[0].broker

    @property
    def nodename(self) -> str:
        return self.members[0].nodename


@dataclass(frozen=True, slots=True)
class SourceView:
    """How a source of ours is doing."""

    up: bool
    duration_seconds: float | None
    #: By kind of access (``processes``, ``shared_memory``): True while the kernel refuses it.
    denied: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that can be shown, at one moment."""

    groups: tuple[GroupView, ...]
    queues: tuple[QueueView, ...] = ()
    sent: tuple[SentView, ...] = ()
    #: Whether there is more than one broker, so that they have to be told apart.
    several_brokers: bool = False
    sources: dict[str, SourceView] = field(default_factory=dict)
    reports_received: int = 0
    reports_rejected: dict[str, int] = field(default_factory=dict)
    events_received: dict[str, int] = field(default_factory=dict)
    #: Task events that could not be counted, by why.
    events_ignored: dict[str, int] = field(default_factory=dict)
    tasks_in_flight: int = 0
    event_lag_seconds: float | None = None
    broker_reconnects: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def workers(self) -> tuple[WorkerView, ...]:
        return tuple(member for group in self.groups for member in group.members)
