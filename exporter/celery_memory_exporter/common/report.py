"""What the agent tells the exporter: one ``WorkerReport`` per worker and interval, as an event's
field.

Standard library only, because the agent loads it inside the worker.

Invariants:

* every figure is cumulative since the worker's main process started (``Instance``), or a present
  state: a lost, repeated or reordered report costs nothing. Evidence that is left out of a partial
  report is as it was; that of each task type is told at least at every fourth;
* what a process could not read is left out, never sent as zero;
* an agent may be newer than the exporter: unknown keys are ignored; what is read differently raises
  ``VERSION``.

``codec`` turns a report into plain values and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from celery_memory_exporter.common.evidence import Evidence
from celery_memory_exporter.common.kernel import CgroupMemory

VERSION = 1
#: Event type on Celery's event stream; its group and so its routing key is ``memory.report``.
EVENT_TYPE = "memory-report"

#: Bytes behind one live block of Python's allocator, where only blocks are known. Measured: 99 in a
#: bare Celery worker's heap, 82 in a heap of small dicts, by the size classes that
#: sys._debugmallocstats() lists.
MEAN_BLOCK_BYTES = 90

#: Outcomes of a run, in Celery's words; ``aborted`` is a run that ended by an exception Celery does
#: not handle.
OUTCOMES = ("succeeded", "failed", "retried", "rejected", "ignored", "aborted")

#: Why a pool child ended.
EXIT_REASONS = ("tasks", "memory", "oom", "signal", "shutdown", "error")

#: What makes an audit say nothing: what the application did in the run (it collected, froze,
#: switched or debugged its collector, set thresholds, began to trace or profile), or tuples that
#: wait to be used again.
DISCARD_REASONS = (
    *("collected", "frozen", "switched", "debug", "threshold"),
    *("trace", "profile", "tracemalloc", "free_tuples"),
)


@dataclass(frozen=True, slots=True)
class Instance:
    """Which run of which worker this is: the main process's identity, never reused by another
    process."""

    boot_id: str
    pid_namespace: int | None
    pid: int
    start_ticks: int | None
    #: Unix time on the worker's host; only compared with others of the same nodename, to tell old
    #: from new.
    started_at: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations per bucket (not cumulative); the last count is of those above every bound."""

    counts: list[int]
    sum: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of the report's histograms, ascending."""

    runtime_seconds: list[float]
    queue_wait_seconds: list[float]
    delta_bytes: list[float]
    peak_bytes: list[float]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What became of the messages of one task type on one queue, as the worker's task events tell
    it, sent or not."""

    name: str
    queue: str
    received: int
    started: int
    succeeded: int
    #: By exception class.
    failed: dict[str, int]
    retried: int
    rejected: int
    revoked: int
    #: Seconds that tasks ran which succeeded.
    runtime: Histogram
    #: Seconds from when a task was sent, or due, until it started; of messages that tell when they
    #: were sent.
    queue_wait: Histogram


@dataclass(frozen=True, slots=True)
class Running:
    """Tasks of one type that run now."""

    name: str
    count: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class TaskReport:
    """Cumulative figures of one task type on one queue, over all processes of the worker, gone ones
    included."""

    name: str
    queue: str
    runs: dict[str, int]
    #: By outcome, the sum over its runs.
    seconds: dict[str, float]
    #: RSS after minus before, of the runs that had their process to themselves.
    delta: Histogram
    growth_bytes: float
    release_bytes: float
    peak: Histogram | None
    #: Live memory left behind in processes alive now by ``retained_runs`` runs: without each
    #: process's first.
    retained_blocks: float
    retained_native_bytes: float | None
    retained_runs: int
    audited_runs: int = 0
    evidence: Evidence | None = None

    @property
    def retained_bytes(self) -> float:
        """Live bytes left behind: the C heap's exactly, Python's small objects by the mean size of
        a block."""
        return (self.retained_native_bytes or 0.0) + self.retained_blocks * MEAN_BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """Present state of one process of the worker: ``main`` or the slot number of a pool child."""

    process: str
    pid: int
    start_ticks: int | None
    rss_bytes: int | None = None
    anon_bytes: int | None = None
    shmem_bytes: int | None = None
    swap_bytes: int | None = None
    peak_rss_bytes: int | None = None
    python_blocks: int | None = None
    native_live_bytes: int | None = None
    native_free_bytes: int | None = None
    open_fds: int | None = None
    max_fds: int | None = None
    threads: int | None = None
    zombies: int | None = None
    gc_objects: int | None = None
    gc_uncollectable: int | None = None
    gc_collections: list[int] | None = None
    gc_enabled: int | None = None
    #: The process's own past, oldest first: see ``HISTORY``.
    history: list[list[float]] = field(default_factory=list)
    #: At each point of its history: bytes that its runs were said to have left behind by then.
    retained_history: list[float] = field(default_factory=list)


#: What each point of a process's history tells; times are seconds since the process started.
HISTORY = ("seconds", "rss_bytes", "anon_bytes", "live_bytes", "free_bytes", "fds", "threads")


@dataclass(frozen=True, slots=True)
class Container:
    """A long-lived container that grows, in all processes that were searched for suspects."""

    path: str
    kind: str
    items: int
    growth: int
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class ObjectCount:
    """Objects of one type that the garbage collector tracks, over all processes, and how many more
    than at their start."""

    type: str
    count: int
    growth: int


@dataclass(frozen=True, slots=True)
class LostRuns:
    """Runs whose child died under them."""

    name: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """Everything the agent tells of one worker."""

    worker: str
    instance: Instance
    #: Rises by one with each report of an instance.
    sequence: int
    interval_seconds: float
    pool: str
    concurrency: int
    python_version: str
    celery_version: str
    agent_version: str
    bounds: Bounds
    processes: list[ProcessReport]
    tasks: list[TaskReport]
    objects: list[ObjectCount]
    lost: list[LostRuns]
    children_started: int
    children_exited: dict[str, int]
    child_memory_limit_bytes: int | None
    cgroup: CgroupMemory
    overhead_seconds: float
    reports_dropped: int
    errors: int
    #: What the agent's own caps folded into ``other`` or left out, by what it was (``tasks``,
    #: ``object_types``, …).
    dropped: dict[str, int] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    #: Of these, or beside them: those that grow in the main process of a prefork pool.
    main_containers: list[Container] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    running: list[Running] = field(default_factory=list)
    #: Tasks that run now, and those that wait in the worker for their turn.
    active: int | None = None
    prefetched: int | None = None
    #: Queues that it consumes.
    queues: list[str] = field(default_factory=list)
    #: 1 when the worker has stopped: the last one, which comes after its goodbye.
    final: int = 0
    #: 1 when evidence is left out of task types that have not run since it was told.
    partial: int | None = None
    #: Audits that said nothing, by one of ``DISCARD_REASONS``.
    audits_discarded: dict[str, int] = field(default_factory=dict)
    version: int = VERSION
