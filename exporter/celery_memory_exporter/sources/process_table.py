"""The local process table: Celery workers and their pool children, found without their help.

Plain values out; psutil and ``/proc`` in. A process that vanished, or that another user's rights
hide, is left out and is no error.

What a worker is: a process that runs ``celery … worker`` (the script, ``python -m celery``, or the
title that Celery gives itself where setproctitle is installed) and whose parent is not one. Its
pool children are direct children with the same command line that ignore SIGINT, as Celery's pool
initializer makes them; an embedded beat does not. A worker started by an application's own script
has no telling command line: it is found when it has the agent, or setproctitle.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from celery.utils.nodenames import default_nodename, host_format

from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.names import printable
from celery_memory_exporter.fleet.facts import (
    Identity,
    ProcessMemory,
    SharedMemory,
    WorkerProcesses,
)

SIGINT_MASK = 1 << (2 - 1)

#: ``[celeryd: celery@host:MainProcess] -active- (worker -A app)``,
#: ``[celeryd: celery@host:ForkPoolWorker-1]``
TITLE = re.compile(r"^\[celeryd: (?P<nodename>\S+?):(?P<process>[^\]]+)\]")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A process whose command line is a Celery worker's."""

    pid: int
    parent: int
    arguments: tuple[str, ...]


def is_worker(arguments: Iterable[str]) -> bool:
    """Whether a command line is ``celery … worker …`` in one of its forms."""
    words = [word for word in arguments if word]
    if not words:
        return False
    if TITLE.match(words[0]):
        return True
    interpreter, *rest = words
    if Path(interpreter).name.startswith(("python", "pypy")):
        while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
            rest = rest[2:] if rest[0] in ("-W", "-X") else rest[1:]
        if rest[:1] == ["-m"]:
            rest = rest[1:]
            return bool(rest) and rest[0] in ("celery", "celery.__main__") and "worker" in rest[1:]
        if rest[:1] == ["-c"]:
            return False
    else:
        rest = words
    return bool(rest) and Path(rest[0]).name == "celery" and "worker" in rest[1:]


def nodename_of(arguments: Sequence[str], hostname: str) -> str:
    """The worker's full nodename from its command line, on a host of that name, by Celery's own
    rules for ``-n``."""
    title = TITLE.match(arguments[0]) if arguments else None
    if title:
        return title["nodename"]
    given = ""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word in ("-n", "--hostname"):
            given = following
        elif word.startswith("--hostname="):
            given = word.partition("=")[2]
        elif word.startswith("-n") and not word.startswith("--"):
            given = word[2:]
    return str(host_format(default_nodename(given or hostname), host=hostname))


def hostname_of(pid: int, namespace_pids: tuple[int, ...]) -> str:
    """The process's name for its host: of a container it is in the container's own files, where
    those may be read."""
    own = socket.gethostname()
    if len(namespace_pids) <= 1:
        return own
    inside = procfs.read_text(f"/proc/{pid}/root/etc/hostname")
    return inside.strip() if inside and inside.strip() else own


def candidates() -> list[Candidate]:
    """All processes that look like Celery workers or their children, oldest first."""
    found = []
    for process in psutil.process_iter():
        try:
            with process.oneshot():
                arguments = tuple(process.cmdline())
                if is_worker(arguments):
                    found.append(
                        (process.create_time(), Candidate(process.pid, process.ppid(), arguments))
                    )
        except psutil.Error:
            continue  # gone since it was listed, a zombie, or another user's: nothing to show
    return [candidate for _, candidate in sorted(found, key=lambda pair: (pair[0], pair[1].pid))]


def read(pid: int) -> ProcessMemory | None:
    """The process's memory now; ``None`` when it is gone or a zombie, which has none."""
    status = procfs.status(pid)
    if status is None or status.state == "Z" or status.rss_bytes is None:
        return None
    return ProcessMemory(
        pid=pid,
        identity=Identity(
            status.namespace_pids[-1] if status.namespace_pids else pid,
            procfs.start_ticks(pid),
            procfs.pid_namespace(pid),
        ),
        status=status,
        open_fds=procfs.open_fds(pid),
        max_fds=procfs.max_fds(pid),
        zombies=procfs.zombies(pid),
    )


def workers() -> list[WorkerProcesses]:
    """The workers of this machine that may be seen, main processes oldest first."""
    found = candidates()
    pids = {candidate.pid for candidate in found}
    result = []
    for candidate in found:
        if candidate.parent in pids:
            continue
        main = read(candidate.pid)
        if main is None:
            continue
        children = (read(each.pid) for each in found if each.parent == candidate.pid)
        hostname = hostname_of(candidate.pid, main.status.namespace_pids)
        result.append(
            WorkerProcesses(
                nodename=printable(nodename_of(candidate.arguments, hostname)),
                main=main,
                children=tuple(
                    child
                    for child in children
                    if child and child.status.ignored_signals & SIGINT_MASK
                ),
                cgroup=procfs.cgroup_memory(candidate.pid),
            )
        )
    return result


def others_hidden() -> bool:
    """Whether the kernel shows only the processes of this user (``hidepid``): each pid namespace
    has a process 1."""
    return procfs.status(1) is None


def shared_memory(pid: int) -> SharedMemory | None:
    """Reads ``smaps_rollup``, which walks the process's whole address space: 15 µs a MiB, so never
    in a scrape.

    ``None`` where it may not be read: it needs the target's user and capabilities, or
    ``CAP_SYS_PTRACE``.
    """
    fields = procfs.parse_colon_lines(procfs.read_text(f"/proc/{pid}/smaps_rollup") or "")
    sizes = {
        key: int(value.split()[0]) * 1024 for key, value in fields.items() if value.endswith("kB")
    }
    if "Pss" not in sizes:
        return None
    private = ("Private_Clean", "Private_Dirty", "Private_Hugetlb")
    return SharedMemory(sizes["Pss"], sum(sizes.get(key, 0) for key in private))


def shared_memory_denied(pid: int) -> bool:
    """Whether ``shared_memory`` is absent for want of rights, which the kernel looks at when the
    file is opened."""
    return procfs.denied(f"/proc/{pid}/smaps_rollup")
