"""A folder of this user's own, for what outlives a worker.

Wherever it is, maybe where anybody may write, nobody else can read it, put a file into it, or have
a file of this user's written to: the folder is this user's and closed to all others, which is
looked at each time it is opened, and everything in it is opened relative to it and never through a
link.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from celery_memory_exporter.common import procfs

MODE = 0o700
#: File systems that cannot promise room for what is written to a file through memory, or whose
#: server may be away: a process that writes there can be killed (SIGBUS), or wait.
UNSAFE = ("btrfs", "zfs", "bcachefs", "nfs", "nfs4", "cifs", "smb3", "ceph")


def filesystem(path: str, mounts: str) -> str:
    """What kind the path's file system is, by the text of ``/proc/mounts``; empty where that does
    not tell. Of two mounts at one place the later one is seen."""
    kinds = [line.split()[1:3] for line in mounts.splitlines() if len(line.split()) > 2]
    above = [
        (len(point), number, kind)
        for number, (point, kind) in enumerate(kinds)
        if point == "/" or f"{path}/".startswith(f"{point}/")
    ]
    return max(above)[2] if above else ""


class StateFolder:
    """``parent`` is where it lies; ``None`` for the temporary directory. Methods raise ``OSError``,
    also where the folder is not safe."""

    def __init__(self, parent: str | None) -> None:
        name = f"celery-memory-exporter-{os.geteuid()}"
        self.path = os.path.join(parent or tempfile.gettempdir(), name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, MODE)
        with self._opened():
            pass
        kind = filesystem(os.path.realpath(self.path), procfs.read_text("/proc/self/mounts") or "")
        if kind in UNSAFE or kind.startswith("fuse"):
            raise OSError(f"{self.path} is on {kind}, which cannot promise room for it")

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Never kept: a task may close what is open in its process."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(folder)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise PermissionError(f"{self.path} is open to others, or another user's")
            yield folder
        finally:
            os.close(folder)

    def names(self) -> list[str]:
        """Of the files in it."""
        with self._opened() as folder:
            return sorted(os.listdir(folder))

    def create(self, name: str, size: int) -> int:
        """A descriptor of a new file of so many zeros, for which the disk has room."""
        file = self._open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            # A hole that cannot be filled when it is written to would kill the process (SIGBUS).
            os.posix_fallocate(file, 0, size)
        except OSError:
            os.close(file)
            self.remove(name)
            raise
        return file

    def open(self, name: str) -> int:
        """A descriptor of a file that is there, to read and write."""
        return self._open(name, os.O_RDWR)

    def write(self, name: str, data: bytes) -> None:
        """In one piece: whoever opens the file finds what was in it before, or this."""
        new = f"{name}.new"
        file = self._open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
        with self._opened() as folder:
            os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)

    def read(self, name: str, most: int) -> bytes:
        """The file's first ``most`` bytes."""
        with os.fdopen(self._open(name, os.O_RDONLY), "rb") as stream:
            return stream.read(most)

    def remove(self, name: str) -> None:
        """Also of a file that is not there any more."""
        with self._opened() as folder, contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)

    def _open(self, name: str, flags: int) -> int:
        with self._opened() as folder:
            file = os.open(
                name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=folder
            )
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(file)
            raise PermissionError(f"{self.path}/{name} is no file of this user's")
        return file
