"""What a process reads of itself."""

from __future__ import annotations

import ast
import os
import threading
from pathlib import Path

import pytest

from celery_memory_exporter.agent.stats import readings as readings_module
from celery_memory_exporter.agent.stats.readings import KeptFile, Readings


def test_readings_of_this_process() -> None:
    readings = Readings()
    rss = readings.rss()
    assert rss is not None
    kept = bytearray(32 * 1024 * 1024)
    after = readings.rss()
    assert after is not None
    assert after - rss > 16 * 1024 * 1024
    del kept


def test_native_bytes_follow_malloc_where_glibc_tells() -> None:
    readings = Readings()
    before = readings.native_live()
    if before is None:
        pytest.skip("no mallinfo2 here: musl, an old glibc, or another allocator")
    kept = bytearray(1_000_000)
    after = readings.native_live()
    assert after is not None
    assert 990_000 < after - before < 1_100_000
    del kept


def test_those_of_a_forked_process_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = Readings()
    monkeypatch.setattr(readings_module, "load_mallinfo2", pytest.fail)
    reader, writer = os.pipe()
    if os.fork() == 0:
        both = readings.forked(), readings
        before = [each.rss() or 0 for each in both]
        ballast = b"x" * 50_000_000
        grown = [(each.rss() or 0) - rss for each, rss in zip(both, before, strict=True)]
        os.write(writer, repr([*grown, len(ballast)]).encode())
        os._exit(0)
    os.wait()
    own, parents, ballast = ast.literal_eval(os.read(reader, 100).decode())
    assert parents < ballast / 2 < own, "a kept descriptor is of the process that opened it"


def test_what_cannot_be_opened_is_absent() -> None:
    file = KeptFile("/proc/self/no-such-file", os.O_RDONLY)
    assert (file.read(), file.write(b"x")) == (b"", False)


def test_a_kept_file_never_writes_into_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "ours").touch()
    file = KeptFile(str(tmp_path / "ours"), os.O_WRONLY)
    assert file._fd is not None
    users = os.open(tmp_path / "users-own", os.O_CREAT | os.O_RDWR)
    os.dup2(users, file._fd)
    os.write(users, b"1 2 3")
    assert not file.write(b"5")
    assert (tmp_path / "users-own").read_bytes() == b"1 2 3"


def test_a_file_of_the_tasks_own_is_not_taken_for_a_reading(tmp_path: Path) -> None:
    readings = Readings()
    assert readings.rss()
    (tmp_path / "users-own").write_bytes(b"1 2 3")
    users = os.open(tmp_path / "users-own", os.O_RDONLY)
    assert readings._statm._fd is not None
    os.dup2(users, readings._statm._fd)
    assert readings.rss() is None
    assert readings.shared() is None


def test_descriptors_threads_and_children_are_counted() -> None:
    readings = Readings()
    before = readings.fds(), readings.threads(), readings.children()
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    after = readings.fds(), readings.threads(), readings.children()
    leave.set()
    thread.join()
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)
    assert [new - old for new, old in zip(after, before, strict=True)] == [2, 1, 1], (
        "a child that nobody waited for counts"
    )
