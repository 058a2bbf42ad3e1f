"""What the kernel tells of a process and of a cgroup: plain values, which ``procfs`` reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """What ``/proc/<pid>/status`` tells of one process."""

    rss_bytes: int | None
    anon_bytes: int | None
    shmem_bytes: int | None
    swap_bytes: int | None
    peak_rss_bytes: int | None
    threads: int | None
    state: str
    #: The pid in every pid namespace that the process is in, outermost (ours) first.
    namespace_pids: tuple[int, ...]
    #: Bit mask of ignored signals; a pool child ignores SIGINT, which tells it from an embedded
    #: beat.
    ignored_signals: int


@dataclass(frozen=True, slots=True)
class CgroupMemory:
    """The memory controller's view of the group that a worker runs in."""

    #: The smallest limit of the group and its ancestors: the one that kills.
    limit_bytes: int | None = None
    usage_bytes: int | None = None
    #: Usage less the page cache that can be dropped at once: what the kubelet evicts on.
    working_set_bytes: int | None = None
    oom_kills: int | None = None
