"""What sources tell the fleet: plain, frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field

from celery_memory_exporter.common.kernel import CgroupMemory, Status


@dataclass(frozen=True, slots=True)
class Identity:
    """A process on this machine since it was booted; never reused."""

    #: The pid that the process knows itself by, in the innermost pid namespace.
    inner_pid: int
    start_ticks: int | None
    #: Inode of that namespace; ``None`` where the process may not be inspected.
    namespace: int | None = None

    def matches(self, pid: int, start_ticks: int | None, namespace: int | None) -> bool:
        """Whether this is the process that calls itself so, on the same machine since the same
        boot."""
        same_namespace = namespace is None or self.namespace is None or namespace == self.namespace
        return (pid, start_ticks) == (self.inner_pid, self.start_ticks) and same_namespace


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """One process, as the kernel tells of it now."""

    pid: int
    identity: Identity
    status: Status
    open_fds: int | None
    max_fds: int | None
    zombies: int | None


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """What a process would free alone (USS) and with its fair share of shared pages (PSS), in
    bytes."""

    pss_bytes: int
    uss_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerProcesses:
    """A worker's main process and its pool children, oldest first."""

    nodename: str
    main: ProcessMemory
    children: tuple[ProcessMemory, ...]
    cgroup: CgroupMemory


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker without an agent answers when it is asked (``inspect``)."""

    pool: str | None
    concurrency: int | None
    #: Processes of its pool that run tasks; 0 outside prefork.
    processes: int
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QueueReading:
    """What a broker tells of one queue; what it cannot tell is absent."""

    name: str
    length: int | None = None
    #: Where the broker has a queue for each priority (Redis), as it numbers them.
    by_priority: dict[int, int] = field(default_factory=dict)
    consumers: int | None = None
    oldest_seconds: float | None = None
