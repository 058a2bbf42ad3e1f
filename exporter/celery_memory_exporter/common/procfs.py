"""Values out of Linux' ``/proc`` and cgroup files: standard library only, for the agent and the
exporter alike.

Invariants: nothing here raises for a process that vanished, a file that is not there or one that
may not be read; the answer is then ``None`` (unknown is absent, never zero). Sizes are bytes.
Formats: ``proc(5)``, ``cgroups(7)`` and the kernel's ``Documentation/admin-guide/cgroup-v2.rst``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePosixPath

from celery_memory_exporter.common.kernel import CgroupMemory, Status

#: cgroup v1 says "no limit" with the largest page-aligned value a 64-bit counter holds.
V1_UNLIMITED = 0x7FFF_FFFF_FFFF_F000


def read_text(path: str) -> str | None:
    """The file's content, or ``None`` when it is gone, foreign or not there on this system."""
    try:
        # A kernel's file is short, and made anew at each read: a buffer would only take time.
        with open(path, "rb", buffering=0) as file:
            return file.readall().decode("utf-8", "replace")
    except OSError:
        return None


def denied(path: str) -> bool:
    """Whether the file is there and may not be read."""
    try:
        with open(path, "rb"):
            return False
    except PermissionError:
        return True
    except OSError:
        return False


def parse_colon_lines(text: str) -> dict[str, str]:
    """``Key:\\tvalue`` lines, as in ``/proc/<pid>/status``."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, colon, value in pairs if colon}


def parse_space_lines(text: str) -> dict[str, int]:
    """``key value`` lines, as in ``memory.stat`` and ``memory.events``."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


@lru_cache(maxsize=1)
def boot_id() -> str:
    """Random per boot of the machine: tells this machine's pids from another's. Empty where there
    is no ``/proc``."""
    return (read_text("/proc/sys/kernel/random/boot_id") or "").strip()


def pid_namespace(pid: int | str = "self") -> int | None:
    """The inode number of a process's pid namespace; needs the right to inspect that process
    (ptrace access)."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        return None


def start_ticks(pid: int | str = "self") -> int | None:
    """When the process started, in clock ticks since boot: with the pid it is an identity that is
    never reused."""
    text = read_text(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The command name, in parentheses, may hold spaces and parentheses itself: count from the last
    # one.
    return int(text.rpartition(")")[2].split()[19])


def parse_status(text: str) -> Status:
    lines = f"\n{text}"

    def field(key: str) -> str:
        return lines.partition(f"\n{key}:")[2].partition("\n")[0].strip()

    def kibibytes(key: str) -> int | None:
        value = field(key).split()
        return int(value[0]) * 1024 if value else None

    threads = field("Threads")
    return Status(
        rss_bytes=kibibytes("VmRSS"),
        anon_bytes=kibibytes("RssAnon"),
        shmem_bytes=kibibytes("RssShmem"),
        swap_bytes=kibibytes("VmSwap"),
        peak_rss_bytes=kibibytes("VmHWM"),
        threads=int(threads) if threads.isdigit() else None,
        state=(field("State") or "?")[:1],
        namespace_pids=tuple(int(pid) for pid in field("NSpid").split()),
        ignored_signals=int(field("SigIgn") or "0", 16),
    )


def status(pid: int | str = "self") -> Status | None:
    """The process's memory and identity, or ``None`` when it is gone."""
    text = read_text(f"/proc/{pid}/status")
    return parse_status(text) if text else None


def open_fds(pid: int | str = "self") -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return None


def max_fds(pid: int | str = "self") -> int | None:
    """The soft limit of open files; ``None`` also when it is unlimited."""
    for line in (read_text(f"/proc/{pid}/limits") or "").splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else None
    return None


def zombies(pid: int | str = "self") -> int | None:
    """How many children of this process ended without being waited for.

    The kernel lists children per thread, and only when built with ``CONFIG_PROC_CHILDREN``.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return None
    count = 0
    for thread in threads:
        listing = read_text(f"/proc/{pid}/task/{thread}/children")
        if listing is None:
            return None
        children = (status(int(child)) for child in listing.split())
        count += sum(1 for child in children if child is not None and child.state == "Z")
    return count


def parse_cgroup_paths(text: str) -> tuple[str | None, str | None]:
    """Out of ``/proc/<pid>/cgroup``, the paths in the v2 and in the v1 memory hierarchy."""
    unified = legacy = None
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            unified = path
        elif "memory" in controllers.split(","):
            legacy = path
    return unified, legacy


def ancestors(path: str) -> list[str]:
    """The group and all above it, nearest first: ``/a/b`` gives ``/a/b``, ``/a``, and the root."""
    parts = PurePosixPath("/" + path.strip("/"))
    return [str(parts), *(str(parent) for parent in parts.parents)]


def smallest(values: list[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def read_number(path: str) -> int | None:
    text = (read_text(path) or "").strip()
    return int(text) if text.isdigit() else None


def read_pairs(path: str) -> Mapping[str, int]:
    return parse_space_lines(read_text(path) or "")


def cgroup_v2(root: str, path: str) -> CgroupMemory | None:
    group = f"{root}{path.rstrip('/')}"
    usage = read_number(f"{group}/memory.current")
    limit = smallest(
        [read_number(f"{root}{each.rstrip('/')}/memory.max") for each in ancestors(path)]
    )
    if usage is None:
        return None
    stat = read_pairs(f"{group}/memory.stat")
    return CgroupMemory(
        limit_bytes=limit,
        usage_bytes=usage,
        working_set_bytes=max(0, usage - stat.get("inactive_file", 0)),
        oom_kills=read_pairs(f"{group}/memory.events").get("oom_kill"),
    )


def cgroup_v1(root: str, path: str) -> CgroupMemory | None:
    group = f"{root}{path.rstrip('/')}"
    usage = read_number(f"{group}/memory.usage_in_bytes")
    if usage is None:
        return None
    limits = [
        read_number(f"{root}{each.rstrip('/')}/memory.limit_in_bytes") for each in ancestors(path)
    ]
    stat = read_pairs(f"{group}/memory.stat")
    return CgroupMemory(
        limit_bytes=smallest(
            [value for value in limits if value is not None and value < V1_UNLIMITED]
        ),
        usage_bytes=usage,
        working_set_bytes=max(0, usage - stat.get("total_inactive_file", 0)),
        oom_kills=read_pairs(f"{group}/memory.oom_control").get("oom_kill"),
    )


def cgroup_memory(
    pid: int | str = "self", root: str = "/sys/fs/cgroup", proc: str = "/proc"
) -> CgroupMemory:
    """Limit, usage and OOM kills of the process's memory cgroup, v1 or v2; all absent when there is
    none.

    In a container the path that ``/proc`` tells may be the host's, while ``/sys/fs/cgroup`` shows
    the container's own group as its root: where the path is not found there, the root is read. Of a
    process in another container that is not our root but its own, which only who may trace it can
    see (proc(5), ``/proc/pid/root``).
    """
    text = read_text(f"{proc}/{pid}/cgroup") or ""
    own = root if text == read_text(f"{proc}/self/cgroup") else f"{proc}/{pid}/root{root}"
    unified, legacy = parse_cgroup_paths(text)
    readings = []
    if legacy is not None:
        readings += [cgroup_v1(f"{root}/memory", legacy), cgroup_v1(f"{own}/memory", "/")]
    if unified is not None:
        readings += [cgroup_v2(root, unified), cgroup_v2(own, "/")]
    return next((reading for reading in readings if reading is not None), CgroupMemory())
