"""/proc and cgroup files: the parsers by values, the readers on this very process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.kernel import CgroupMemory

STATUS = """Name:\tcelery
State:\tS (sleeping)
NSpid:\t4001\t12
VmHWM:\t   60000 kB
VmRSS:\t   50000 kB
RssAnon:\t   40000 kB
RssShmem:\t       8 kB
VmSwap:\t       0 kB
Threads:\t3
SigIgn:\t0000000001001002
"""


def test_status_is_read_in_bytes() -> None:
    status = procfs.parse_status(STATUS)
    assert status.rss_bytes == 50_000 * 1024
    assert (status.anon_bytes, status.shmem_bytes, status.swap_bytes) == (
        40_000 * 1024,
        8 * 1024,
        0,
    )
    assert (status.peak_rss_bytes, status.threads, status.state) == (60_000 * 1024, 3, "S")
    assert status.namespace_pids == (4001, 12)
    assert status.ignored_signals & 2


def test_a_zombie_has_no_memory_rather_than_none_of_it() -> None:
    status = procfs.parse_status("State:\tZ (zombie)\nThreads:\t1\n")
    assert (status.state, status.rss_bytes, status.peak_rss_bytes) == ("Z", None, None)


def test_a_process_that_is_not_there_is_unknown() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert procfs.status(process.pid) is None
    assert procfs.open_fds(process.pid) is None
    assert procfs.max_fds(process.pid) is None
    assert procfs.zombies(process.pid) is None
    assert procfs.start_ticks(process.pid) is None


def test_this_process() -> None:
    status = procfs.status()
    assert status is not None
    assert status.rss_bytes
    assert procfs.start_ticks() == procfs.start_ticks(os.getpid())
    fds = procfs.open_fds()
    assert fds is not None
    with open(os.devnull, encoding="ascii"):
        assert procfs.open_fds() == fds + 1


def test_a_child_that_nobody_waits_for_is_a_zombie() -> None:
    before = procfs.zombies()
    if before is None:
        pytest.skip("this kernel does not list children (CONFIG_PROC_CHILDREN)")
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert procfs.zombies() == before + 1
    process.wait()
    assert procfs.zombies() == before


def test_start_ticks_survive_any_command_name(monkeypatch: pytest.MonkeyPatch) -> None:
    stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1"
    monkeypatch.setattr(procfs, "read_text", lambda path: stat)
    assert procfs.start_ticks(7) == 987654


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_ancestors_are_nearest_first() -> None:
    assert procfs.ancestors("/a/b") == ["/a/b", "/a", "/"]
    assert procfs.ancestors("/") == ["/"]


def test_cgroup_v2_takes_the_smallest_limit_of_all_ancestors(tmp_path: Path) -> None:
    group = tmp_path / "pod" / "container"
    write(group / "memory.max", "max\n")
    write(tmp_path / "pod" / "memory.max", "1000\n")
    write(group / "memory.current", "700\n")
    write(group / "memory.stat", "anon 1\ninactive_file 200\n")
    write(group / "memory.events", "oom 3\noom_kill 2\n")
    assert procfs.cgroup_v2(str(tmp_path), "/pod/container") == CgroupMemory(1000, 700, 500, 2)


def test_cgroup_v1_takes_the_smallest_limit_and_knows_its_word_for_none(tmp_path: Path) -> None:
    group = tmp_path / "docker"
    write(group / "memory.limit_in_bytes", f"{procfs.V1_UNLIMITED}\n")
    write(group / "memory.usage_in_bytes", "700\n")
    write(group / "memory.stat", "total_inactive_file 900\n")
    write(group / "memory.oom_control", "oom_kill_disable 0\noom_kill 4\n")
    assert procfs.cgroup_v1(str(tmp_path), "/docker") == CgroupMemory(None, 700, 0, 4)
    write(tmp_path / "memory.limit_in_bytes", "5000\n")
    assert procfs.cgroup_v1(str(tmp_path), "/docker") == CgroupMemory(5000, 700, 0, 4)


def group_of(folder: Path, limit: int, usage: int) -> None:
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{usage}\n")


def test_a_process_in_another_container_is_not_taken_for_one_in_ours(tmp_path: Path) -> None:
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    group_of(root, limit=200, usage=20)
    write(proc / "self" / "cgroup", "0::/\n")
    write(proc / "8" / "cgroup", "0::/\n")
    write(proc / "9" / "cgroup", "0::/../other\n")
    assert procfs.cgroup_memory(8, str(root), str(proc)).limit_bytes == 200, "it is in our group"
    assert procfs.cgroup_memory(9, str(root), str(proc)) == CgroupMemory(), (
        "its root cannot be seen"
    )
    group_of(proc / "9" / "root" / root.relative_to("/"), limit=300, usage=30)
    assert procfs.cgroup_memory(9, str(root), str(proc)) == CgroupMemory(300, 30, 30, None)


def test_a_path_of_the_host_is_not_found_and_our_root_is_our_group(tmp_path: Path) -> None:
    root, proc = tmp_path / "cgroup", tmp_path / "proc"
    group_of(root, limit=200, usage=20)
    write(proc / "self" / "cgroup", "0::/docker/a\n")
    assert procfs.cgroup_memory("self", str(root), str(proc)) == CgroupMemory(200, 20, 20, None)


def test_no_cgroup_is_unknown(tmp_path: Path) -> None:
    assert procfs.cgroup_memory(root=str(tmp_path)) == CgroupMemory()


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("0::/user.slice\n", ("/user.slice", None)),
        ("9:name=systemd:/\n4:memory:/docker/a\n0::/\n", ("/", "/docker/a")),
        ("5:cpu,memory:/x\n", (None, "/x")),
        ("", (None, None)),
    ],
)
def test_cgroup_paths(text: str, paths: tuple[str | None, str | None]) -> None:
    assert procfs.parse_cgroup_paths(text) == paths
