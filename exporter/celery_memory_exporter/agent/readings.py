"""One process's own memory, read fast enough for every task run. Bytes; ``None`` where the system cannot tell.

Costs on the development machine: RSS 2 µs (``pread`` on a kept descriptor, against 10 µs for open, read and close), live
blocks 1 µs on a small heap and 50 µs at a million objects, native bytes 1 µs, peak reset and reading 2 µs.

A descriptor that is kept can be closed by the task under us and its number given to the task's own file: each use first looks
whether it is still ours, and a file that is not, or that may not be used, is given up.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys

from celery_memory_exporter import procfs

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class KeptFile:
    """A file of ``/proc/self``, opened once per process; absent when it cannot be opened."""

    def __init__(self, path: str, flags: int) -> None:
        try:
            self._fd: int | None = os.open(path, flags | os.O_CLOEXEC)
            self._identity = self._identify()
        except OSError:
            self._fd = None

    def _identify(self) -> tuple[int, int]:
        assert self._fd is not None
        stat = os.fstat(self._fd)
        return stat.st_dev, stat.st_ino

    def _ours(self) -> bool:
        return self._fd is not None and self._identify() == self._identity

    def read(self) -> bytes | None:
        with contextlib.suppress(OSError):
            if self._ours():
                return os.pread(self._fd, 128, 0)  # type: ignore[arg-type]  # ours, so not None
        self._fd = None
        return None

    def write(self, data: bytes) -> bool:
        with contextlib.suppress(OSError):
            if self._ours():
                os.write(self._fd, data)  # type: ignore[arg-type]  # ours, so not None
                return True
        self._fd = None
        return False

    def close(self) -> None:
        """Only a descriptor that is still ours is closed."""
        with contextlib.suppress(OSError):  # the task closed it before us
            if self._ours():
                os.close(self._fd)  # type: ignore[arg-type]  # ours, so not None
        self._fd = None


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
    """glibc's ``mallinfo2`` (2.33 and later); ``None`` with musl, macOS, or another allocator in glibc's place."""
    maps = procfs.read_text("/proc/self/maps") or ""
    if any(allocator in maps for allocator in ("jemalloc", "tcmalloc", "mimalloc")):
        return None
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = MallocInfo
        function.argtypes = []
    return function


class Readings:
    """The readings of the process that made it: make a new one after a fork."""

    def __init__(self) -> None:
        self._statm = KeptFile("/proc/self/statm", os.O_RDONLY)
        self._clear_refs = KeptFile("/proc/self/clear_refs", os.O_WRONLY)
        self._mallinfo2 = load_mallinfo2()

    def close(self) -> None:
        self._statm.close()
        self._clear_refs.close()

    def rss(self) -> int | None:
        text = self._statm.read()
        return int(text.split(None, 2)[1]) * PAGE_BYTES if text else None

    def native_live(self) -> int | None:
        """Bytes that C code and large Python objects hold from ``malloc``, in all arenas."""
        if self._mallinfo2 is None:
            return None
        info = self._mallinfo2()
        return int(info.uordblks + info.hblkhd)

    def native_free(self) -> int | None:
        """Bytes that ``malloc`` keeps without anybody using them: fragmentation or an earlier peak."""
        return int(self._mallinfo2().fordblks) if self._mallinfo2 is not None else None

    def reset_peak(self) -> bool:
        """Makes ``peak`` count from now on (``proc_pid_clear_refs(5)``, value 5); false where that is forbidden."""
        return self._clear_refs.write(b"5")

    @staticmethod
    def peak() -> int:
        """Highest RSS since the last reset, else since the process started."""
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    @staticmethod
    def collections() -> list[int]:
        """Automatic and explicit garbage collections so far, by generation."""
        return [generation["collections"] for generation in gc.get_stats()]
