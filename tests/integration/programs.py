"""Programs that tests start, each with its log, and end by their pid."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from tests.conftest import IN_CI
from tests.integration.waiting import PATIENCE, wait_for

T = TypeVar("T")
ROOT = Path(__file__).parent.parent.parent
LOOPBACK = "127.0.0.1"
#: Below those that the kernel gives to clients (net.ipv4.ip_local_port_range): a connection of
#: another test does not take a port between its being chosen here and a server's binding it.
PORTS = range(10_000, 32_000)
#: What is shown of a log where something went wrong.
LOG_TAIL = 4_000


def free_port() -> int:
    """One that nobody listens at now; by chance, so that tests side by side choose others."""
    while True:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind((LOOPBACK, port))
            return port


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), PATIENCE):
        return True
    return False


def need(*programs: str) -> str:
    """The first of the programs that is there; without any the test skips, and in CI fails."""
    for program in programs:
        path = shutil.which(program)
        if path:
            return path
    message = f"{' or '.join(programs)} is not installed; tests/prepare.sh servers installs it"
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


class Program:
    """A process of ours with its log."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.command = command
        self.log = log
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self._ending = False

    def start(self) -> None:
        self._ending = False
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until_up(self, look: Callable[[], T], what: str) -> T:
        """What ``look`` sees, as soon as there is anything. Raises ``AssertionError`` with the
        log's end, and at once if the program ends instead."""

        def look_and_live() -> T:
            if not self.running:
                raise AssertionError(f"{self.command[:3]} ended instead of {what}")
            return look()

        try:
            return wait_for(look_and_live, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text[-LOG_TAIL:]}") from None

    def begin_to_stop(self, signum: int = signal.SIGTERM) -> None:
        """Once: a second signal would be heard as haste."""
        if self.process is not None and self.running and not self._ending:
            self._ending = True
            self.process.send_signal(signum)

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """The exit status. What does not end in time is killed, and that is an error."""
        assert self.process is not None
        self.begin_to_stop(signum)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"{self.command[:3]} did not stop within {PATIENCE:.0f} s:\n{self.text[-LOG_TAIL:]}"
            ) from None

    def ensure_stopped(self) -> None:
        """Also shows the log's end, which pytest prints where the test failed."""
        if self.process is None:
            return
        print(f"--- the end of {self.log}:\n{self.text[-LOG_TAIL:]}")
        if self.running:
            self.stop()


def is_stopped(process: psutil.Process) -> bool:
    """Whether each of its threads is, or it has ended and waits for its parent."""
    threads = Path(f"/proc/{process.pid}/task").glob("*/stat")
    return all(each.read_text().rpartition(")")[2].split()[0] in "TZ" for each in threads)


@contextlib.contextmanager
def suspended(pid: int) -> Iterator[None]:
    """With all its children: nobody answers, and nothing is closed."""
    main = psutil.Process(pid)
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        # A thread that waits for a core takes the signal later than the others still answer.
        wait_for(lambda: all(map(is_stopped, processes)), "all of its threads stand still")
        yield
    finally:
        for process in processes:
            process.resume()
