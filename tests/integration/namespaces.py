"""Programs as another user, in a pid namespace, or before another ``/proc``: by Linux' namespaces,
without a container engine."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from celery_memory_exporter.common import procfs
from tests.integration.programs import ROOT, Program, need
from tests.integration.waiting import wait_for

#: Numbers that no account has.
WORKERS_USER, EXPORTERS_USER = 61_001, 61_002

AnyProgram = TypeVar("AnyProgram", bound=Program)
Start = Callable[[AnyProgram], AnyProgram]


@pytest.fixture
def start() -> Iterator[Start[Program]]:
    """Starts programs, the last of which is stopped first."""
    need("setpriv")
    # Root in a container has not always the right to.
    if (
        subprocess.run(
            [need("unshare"), "--mount", "true"], check=False, capture_output=True
        ).returncode
        != 0
    ):
        pytest.skip("namespaces and other users need root")
    with contextlib.ExitStack() as stack:

        def start(program: Program) -> Program:
            stack.callback(program.ensure_stopped)
            program.start()
            return program

        yield start


def as_user(
    user: int, command: list[str], *files: Path, hidepid: int = 0, capabilities: str = ""
) -> list[str]:
    """The command run by a user without any right but those ``capabilities`` (as setpriv names
    them).

    ``files`` are what it has to read beside this project and its Python, which root may have in its
    home.
    """
    lines = ["set -e", *_opened({Path(sys.base_prefix), Path(sys.prefix), ROOT, *files})]
    if hidepid:
        # A new /proc: to mount the old one again would change it for the whole machine.
        lines.append(f"mount -t proc -o hidepid={hidepid} proc /proc")
    privileges = [
        "--no-new-privs",
        "--inh-caps",
        f"-all{capabilities}",
        "--bounding-set",
        f"-all{capabilities}",
    ]
    privileges += ["--ambient-caps", f"-all{capabilities}"]
    identity = ["--reuid", str(user), "--regid", str(user), "--clear-groups"]
    lines.append(shlex.join(["exec", "setpriv", *identity, *privileges, *command]))
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines)]


def _opened(paths: set[Path]) -> list[str]:
    """Shell lines that make the paths reachable for all: what is closed above them is replaced, in
    one mount namespace only."""
    closed: dict[Path, list[Path]] = {}
    for path in sorted(paths):
        for parent in reversed(path.parents):
            if not parent.stat().st_mode & stat.S_IXOTH:
                closed.setdefault(parent, []).append(path)
                break
    lines = []
    for parent, inside in closed.items():
        lines += [f"mount --rbind {parent} /mnt", f"mount -t tmpfs -o mode=755 tmpfs {parent}"]
        for path in inside:
            lines += [f"mkdir -p {path}", f"mount --rbind /mnt/{path.relative_to(parent)} {path}"]
        lines.append("umount --recursive --lazy /mnt")
    return lines


def ticks_since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")


class Contained(Program):
    """Another program in a pid namespace of its own, as its process 1, on a host of that name."""

    def __init__(self, program: Program, hostname: str) -> None:
        script = shlex.join(["hostname", hostname]) + "; exec " + shlex.join(program.command)
        command = [
            "unshare",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--uts",
            "sh",
            "-c",
            script,
        ]
        super().__init__(command, program.log)
        self.environment = program.environment

    def start(self) -> None:
        """Its process 1 is there then, and was born before any that is started later: by the
        kernel's clock ticks, which is all that some may see of it."""
        super().start()
        born = procfs.start_ticks(self.inner().pid)
        assert born is not None
        wait_for(lambda: ticks_since_boot() > born + 1, "the next of the kernel's ticks")

    def inner(self) -> psutil.Process:
        """Its process 1, as the outside sees it."""
        return self.wait_until_up(
            lambda: next(iter(psutil.Process(self.pid).children()), None),
            "a process in the namespace",
        )

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """unshare waits for its child, and passes no signal on. The child as process 1 gets none
        that it does not handle: none before it has come up."""

        def ended() -> int | None:
            assert self.process is not None
            for inner in psutil.Process(self.pid).children():
                inner.send_signal(signum)
            return self.process.poll()

        return wait_for(ended, f"{self.log} to end", lambda status: status is not None)
