"""One process's own memory, read fast enough for every task run. Bytes; ``None`` where the system
cannot tell.

Costs on the development machine: RSS 2 µs (``pread`` on a kept descriptor, against 10 µs for open,
read and close), live blocks 1 µs on a small heap and 50 µs at a million objects, native bytes 1 µs,
peak reset and reading 2 µs.

A descriptor that is kept can be closed by the task under us and its number given to the task's own
file: each use first looks whether it is still ours, and a file that is not, or that may not be
used, is given up.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import resource
import sys
import tracemalloc

from celery_memory_exporter.agent.interruptions import let_pass
from celery_memory_exporter.common import procfs

#: Seven objects for each size of chunk from 528 to 1,040 bytes: object, its header of 33 bytes, and
#: 8 bytes of the allocator's.
CACHED_SIZES = [chunk - 8 - 33 for chunk in range(528, 1041, 16) for _ in range(7)]
#: File systems in memory that are looked at.
MAX_MOUNTS = 8
#: How many fields ``statm`` has, and which of them are read.
STATM_FIELDS, RESIDENT, SHARED = 7, 1, 2
#: The unit of ``ru_maxrss``.
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class KeptFile:
    """A file of ``/proc/self``, opened once per process; absent when it cannot be opened."""

    def __init__(self, path: str, flags: int) -> None:
        try:
            self._fd: int | None = os.open(path, flags | os.O_CLOEXEC)
            self._identity = self._identify()
        except OSError as error:
            let_pass(error)
            self._fd = None

    def _identify(self) -> tuple[int, int]:
        assert self._fd is not None
        stat = os.fstat(self._fd)
        return stat.st_dev, stat.st_ino

    def _ours(self) -> bool:
        return self._fd is not None and self._identify() == self._identity

    def read(self, size: int = 128) -> bytes:
        """Nothing where it cannot be read. Of whatever has the descriptor: reading a file of the
        task's by mistake harms nobody, and its text is not ours."""
        try:
            if self._fd is not None:
                return os.pread(self._fd, size, 0)
        except OSError as error:
            let_pass(error)
        self._fd = None
        return b""

    def write(self, data: bytes) -> bool:
        try:
            if self._ours():
                os.write(self._fd, data)  # type: ignore[arg-type]  # ours, so not None
                return True
        except OSError as error:
            let_pass(error)
        self._fd = None
        return False


class MallocInfo(ctypes.Structure):
    """glibc's ``struct mallinfo2``, see ``mallinfo(3)``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def load_mallinfo2() -> ctypes._NamedFuncPointer | None:
    """glibc's ``mallinfo2`` (2.33 and later); ``None`` with musl, macOS, or another allocator in
    glibc's place."""
    maps = procfs.read_text("/proc/self/maps") or ""
    if any(allocator in maps for allocator in ("jemalloc", "tcmalloc", "mimalloc")):
        return None
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = MallocInfo
        function.argtypes = []
    return function


def tmpfs_mounts() -> list[str]:
    """Mount points that tasks may write to and that hold their files in memory; ``/dev/shm`` on
    most systems."""
    lines = (procfs.read_text("/proc/self/mounts") or "").splitlines()
    paths = [
        line.split()[1] for line in lines if len(line.split()) > 2 and line.split()[2] == "tmpfs"
    ]
    usable = [
        path for path in dict.fromkeys(paths) if "\\" not in path and os.access(path, os.W_OK)
    ]
    return usable[:MAX_MOUNTS]


class Readings:
    """The readings of the process that made it; see ``forked``."""

    def __init__(self, tmpfs: list[str] | None = None) -> None:
        """``tmpfs``: mount points to look at instead of this machine's."""
        self._mallinfo2 = load_mallinfo2()
        self._tmpfs = tmpfs_mounts() if tmpfs is None else tmpfs
        self._open()

    def forked(self) -> Readings:
        """Those of a child that the process has forked. What is the same in both is not looked for
        again: to read the maps of a large process takes milliseconds."""
        readings = copy.copy(self)
        readings._open()
        return readings

    def _open(self) -> None:
        self._statm = KeptFile("/proc/self/statm", os.O_RDONLY)
        self._clear_refs = KeptFile("/proc/self/clear_refs", os.O_WRONLY)
        self._children = KeptFile(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY)

    def rss(self, field: int = RESIDENT) -> int | None:
        """Resident memory, or what another field of ``proc_pid_statm(5)`` tells of it."""
        fields = self._statm.read().split()
        # A task may have closed the descriptor, and its own file have the number now.
        if len(fields) == STATM_FIELDS and fields[field].isdigit():
            return int(fields[field]) * PAGE_BYTES
        return None

    def shared(self) -> int | None:
        """Resident pages of files and of shared memory (``RssFile`` and ``RssShmem``), in bytes."""
        return self.rss(SHARED)

    def children(self) -> int:
        """Child processes, those included that ended and were not waited for; 0 where the kernel
        does not list them."""
        return self._children.read(4096).count(b" ")

    def tmpfs(self) -> float:
        """Bytes used in the file systems that live in memory, by whomever."""
        used = 0.0
        for path in self._tmpfs:
            try:
                stat = os.statvfs(path)
            except OSError as error:  # unmounted since
                let_pass(error)
                continue
            used += (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        return used

    def in_memory_files(self) -> float:
        """Shared memory of this process and files in memory of everybody: what of the two rises in
        one run may be the run's."""
        return (self.shared() or 0) + self.tmpfs()

    @staticmethod
    def fds() -> int:
        try:
            return len(os.listdir("/proc/self/fd"))
        except OSError as error:  # no more descriptors to be had
            let_pass(error)
            return 0

    @staticmethod
    def threads() -> int:
        try:
            return len(os.listdir("/proc/self/task"))
        except OSError as error:  # the same
            let_pass(error)
            return 0

    def fill_caches(self) -> None:
        """Fills glibc's cache of small free chunks (tcache), which ``mallinfo2`` counts as in use:
        a run that takes a chunk from elsewhere and frees it into the cache would look like one that
        keeps it. Up to 512 bytes Python serves itself.
        """
        if self._mallinfo2 is not None:
            held = [bytes(size) for size in CACHED_SIZES]
            del held

    def native_live(self) -> int | None:
        """Bytes that C code and large Python objects hold from ``malloc``, in all arenas.

        ``None`` while ``tracemalloc`` is at work, whose own records are among them: more than what
        they are about.
        """
        if self._mallinfo2 is None or tracemalloc.is_tracing():
            return None
        info = self._mallinfo2()
        return int(info.uordblks + info.hblkhd)

    def native_free(self) -> int | None:
        """Bytes that ``malloc`` keeps without anybody using them: fragmentation or an earlier
        peak."""
        return int(self._mallinfo2().fordblks) if self._mallinfo2 is not None else None

    def reset_peak(self) -> bool:
        """Makes ``peak`` count from now on (``proc_pid_clear_refs(5)``, value 5); false where that
        is forbidden."""
        return self._clear_refs.write(b"5")

    @staticmethod
    def peak() -> int:
        """Highest RSS since the last reset, else since the process started."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_BYTES

    @staticmethod
    def collected() -> int:
        """Rises when an automatic collection frees something: objects, or, a full one, the
        interpreter's free lists."""
        stats = gc.get_stats()
        return int(sum(generation["collected"] for generation in stats) + stats[-1]["collections"])

    @staticmethod
    def full_collections() -> int:
        """Collections that looked at old objects, too. From Python 3.14 on each looks at a part of
        them."""
        return int(gc.get_stats()[1 if sys.version_info >= (3, 14) else 2]["collections"])

    @staticmethod
    def collections() -> list[int]:
        """Automatic and explicit garbage collections so far, by generation."""
        return [generation["collections"] for generation in gc.get_stats()]
