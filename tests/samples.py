"""Values to test with: one report, one process table, each part replaceable."""

from __future__ import annotations

import dataclasses
from typing import Any

from celery_memory_exporter.common.evidence import Evidence, Holder, Profile, Site
from celery_memory_exporter.common.kernel import CgroupMemory, Status
from celery_memory_exporter.common.report import (
    Bounds,
    Container,
    Histogram,
    Instance,
    LostRuns,
    ObjectCount,
    ProcessReport,
    Running,
    TaskReport,
    Traffic,
    WorkerReport,
)
from celery_memory_exporter.fleet.facts import Identity, ProcessMemory, WorkerProcesses

BOOT = "0b7c2f34-boot"
NAMESPACE = 4026531836
MIB = 1024 * 1024
BOUNDS = Bounds(
    [0.1, 1.0], [0.5, 5.0], delta_bytes=[-1024.0, 0.0, 1024.0], peak_bytes=[0.0, 1024.0]
)


def profile(**columns: list[float]) -> Profile:
    """Of two processes that have each run the type 125 times; each second run was audited and left
    ten blocks behind."""
    runs = [2.0, 8.0, 10.0, 20.0, 20.0, 30.0, 30.0, 30.0, 30.0, 30.0, 30.0, 10.0]
    audited = [each / 2 for each in runs]
    values = {each.name: [0.0] * len(runs) for each in dataclasses.fields(Profile)}
    values |= {"runs": runs, "audited": audited, "blocks": [10 * each for each in audited]}
    values |= {"squares": [810_000 * each for each in audited], "sampled": audited}
    return Profile(**(values | columns))


def evidence(**changes: Any) -> Evidence:
    value = Evidence(
        profile=profile(),
        processes=2.0,
        growing=2.0,
        seconds=60.0,
        survivors={"shop.MyCacheEntry": 124, "list": 248},
        sites=[Site("shop.py:71", "bytes", 3_600.0)],
        deep_audits=4,
        traced_audits=4,
        holders=[Holder("shop._my_app_cache", "dict", 250, 4.0)],
    )
    return dataclasses.replace(value, **changes)


def task(name: str = "shop.leak", queue: str = "celery", **changes: Any) -> TaskReport:
    report = TaskReport(
        name=name,
        queue=queue,
        runs={"succeeded": 8, "failed": 2},
        seconds={"succeeded": 3.5, "failed": 0.25},
        delta=Histogram([0, 6, 3, 1], 9000.0),
        growth_bytes=12_000.0,
        release_bytes=3_000.0,
        peak=Histogram([6, 3, 1], 20_000.0),
        retained_blocks=140.0,
        retained_native_bytes=4_096.0,
        retained_runs=7,
        audited_runs=5,
        evidence=evidence(),
    )
    return dataclasses.replace(report, **changes)


def traffic(name: str = "shop.leak", queue: str = "celery", **changes: Any) -> Traffic:
    row = Traffic(
        name=name,
        queue=queue,
        received=13,
        started=12,
        succeeded=8,
        failed={"ValueError": 2},
        retried=1,
        rejected=0,
        revoked=1,
        runtime=Histogram([5, 2, 1], 3.5),
        queue_wait=Histogram([10, 1, 1], 9.0),
    )
    return dataclasses.replace(row, **changes)


def process(name: str, pid: int, **changes: Any) -> ProcessReport:
    report = ProcessReport(
        process=name,
        pid=pid,
        start_ticks=pid * 10,
        rss_bytes=50 * MIB,
        anon_bytes=40 * MIB,
        shmem_bytes=0,
        swap_bytes=0,
        peak_rss_bytes=60 * MIB,
        python_blocks=300_000,
        native_live_bytes=12 * MIB,
        native_free_bytes=MIB,
        open_fds=20,
        max_fds=1024,
        threads=2,
        zombies=0,
        gc_objects=65_000,
        gc_uncollectable=0,
        gc_collections=[180, 16, 2],
    )
    return dataclasses.replace(report, **changes)


def instance(pid: int = 100, **changes: Any) -> Instance:
    return dataclasses.replace(
        Instance(
            boot_id=BOOT, pid_namespace=NAMESPACE, pid=pid, start_ticks=pid * 10, started_at=1_000.0
        ),
        **changes,
    )


def report(**changes: Any) -> WorkerReport:
    value = WorkerReport(
        worker="celery@web1",
        instance=instance(),
        sequence=3,
        interval_seconds=15.0,
        pool="prefork",
        concurrency=2,
        python_version="3.11.7",
        celery_version="5.7.0",
        agent_version="0.1.0",
        bounds=BOUNDS,
        processes=[process("main", 100), process("0", 101), process("1", 102, rss_bytes=70 * MIB)],
        tasks=[
            task(),
            task("shop.fine", runs={"succeeded": 4}, seconds={"succeeded": 0.5}, evidence=None),
        ],
        traffic=[traffic(), traffic("shop.fine", failed={}, queue_wait=Histogram([0, 0, 0], 0.0))],
        running=[Running("shop.leak", 1, 0.75)],
        active=1,
        prefetched=3,
        queues=["celery"],
        containers=[Container("shop._my_app_cache", "dict", 250, 250)],
        objects=[ObjectCount("shop.MyCacheEntry", 160, 160), ObjectCount("dict", 20_000, -5)],
        lost=[LostRuns("shop.big", "oom", 1)],
        children_started=3,
        children_exited={"oom": 1},
        audits_discarded={"collected": 2},
        child_memory_limit_bytes=200 * MIB,
        cgroup=CgroupMemory(
            limit_bytes=512 * MIB, usage_bytes=300 * MIB, working_set_bytes=250 * MIB, oom_kills=1
        ),
        overhead_seconds=0.25,
        reports_dropped=0,
        errors=0,
    )
    return dataclasses.replace(value, **changes)


def seen(
    pid: int, *, inner: int | None = None, rss: int = 55 * MIB, peak: int | None = None
) -> ProcessMemory:
    status = Status(
        rss_bytes=rss,
        anon_bytes=45 * MIB,
        shmem_bytes=0,
        swap_bytes=0,
        peak_rss_bytes=peak or rss,
        threads=1,
        state="S",
        namespace_pids=(pid,) if inner is None else (pid, inner),
        ignored_signals=2,
    )
    identity = Identity(inner or pid, (inner or pid) * 10, NAMESPACE)
    return ProcessMemory(pid, identity, status, open_fds=18, max_fds=1024, zombies=0)


def table(
    nodename: str = "celery@web1",
    main: int = 100,
    children: tuple[int, ...] = (101, 102),
    rss: int = 55 * MIB,
) -> WorkerProcesses:
    limit = CgroupMemory(limit_bytes=1024 * MIB)
    return WorkerProcesses(
        nodename, seen(main, rss=rss), tuple(seen(child) for child in children), limit
    )


def task_event(kind: str, **changes: Any) -> dict[str, Any]:
    """As Celery sends it: only some kinds have the task's name, and only a client's knows the
    queue."""
    fields: dict[str, Any] = {"hostname": "celery@bare", "uuid": "one", "timestamp": 1_000.0}
    if kind in ("task-sent", "task-received"):
        fields["name"] = "shop.send"
    if kind == "task-sent":
        fields |= {"hostname": "gen7@pod1", "queue": "slow", "timestamp": 999.75}
    if kind == "task-succeeded":
        fields |= {"runtime": 0.3, "result": "None"}
    if kind in ("task-failed", "task-retried"):
        fields |= {"exception": "shop.errors.NoStock('sold out')", "traceback": "…"}
    return fields | changes
