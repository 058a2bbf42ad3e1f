"""Samples of workers and their processes."""

from __future__ import annotations

from celery_memory_exporter.common.report import WorkerReport
from celery_memory_exporter.fleet.snapshot import ProcessView, WorkerView
from celery_memory_exporter.fleet.sums import by_name
from celery_memory_exporter.metrics.samples import Samples
from celery_memory_exporter.metrics.task_samples import add_present, add_task_memory, add_traffic

#: Family by field of a process.
PROCESS_FAMILIES = {
    "rss_bytes": "celery_worker_memory_rss_bytes",
    "anon_bytes": "celery_worker_memory_anon_bytes",
    "shmem_bytes": "celery_worker_memory_shmem_bytes",
    "swap_bytes": "celery_worker_memory_swap_bytes",
    "peak_rss_bytes": "celery_worker_memory_peak_rss_bytes",
    "python_blocks": "celery_worker_python_blocks",
    "native_live_bytes": "celery_worker_native_live_bytes",
    "native_free_bytes": "celery_worker_native_free_bytes",
    "open_fds": "celery_worker_open_fds",
    "max_fds": "celery_worker_max_fds",
    "threads": "celery_worker_threads",
    "zombies": "celery_worker_zombies",
    "gc_objects": "celery_worker_gc_objects",
    "gc_uncollectable": "celery_worker_gc_uncollectable_objects",
}


def add_worker(samples: Samples, worker: WorkerView) -> None:
    name, report = worker.nodename, worker.report
    if worker.traffic is not None:
        add_traffic(samples, worker, worker.traffic)
    samples.add("celery_worker_cgroup_oom_kills_total", (name,), worker.cgroup.oom_kills)
    samples.add("celery_worker_children_started_total", (name,), worker.children_started)
    if report is not None:
        add_report(samples, worker, report)
    if not worker.gone:
        add_state(samples, worker)
        add_present(samples, worker)
        for process in worker.processes:
            add_process(samples, name, process)
    samples.add("celery_memory_exporter_events_lost_total", (name,), worker.events_lost)


def add_state(samples: Samples, worker: WorkerView) -> None:
    """What the worker is now."""
    name, report = worker.nodename, worker.report
    concurrency = "" if worker.concurrency is None else str(worker.concurrency)
    versions = (
        (report.python_version, report.celery_version, report.agent_version)
        if report
        else ("",) * 3
    )
    info = (name, worker.hostname, worker.pool or "", concurrency, *versions)
    samples.add("celery_worker_info", info, 1)
    samples.add("celery_worker_up", (name, worker.hostname), worker.up)
    samples.add("celery_worker_tasks_active", (name, worker.hostname), worker.active_tasks)
    samples.add("celery_worker_prefetched_tasks", (name,), worker.prefetched_tasks)
    samples.add("celery_worker_concurrency", (name,), worker.concurrency)
    cgroup = worker.cgroup
    samples.add("celery_worker_cgroup_memory_limit_bytes", (name,), cgroup.limit_bytes)
    samples.add("celery_worker_cgroup_memory_usage_bytes", (name,), cgroup.usage_bytes)
    samples.add("celery_worker_cgroup_memory_working_set_bytes", (name,), cgroup.working_set_bytes)


def add_process(samples: Samples, worker: str, process: ProcessView) -> None:
    figures, shared = process.figures, process.shared
    labels = (worker, figures.process)
    for field, family in PROCESS_FAMILIES.items():
        samples.add(family, labels, getattr(figures, field))
    for generation, collections in enumerate(figures.gc_collections or ()):
        samples.add("celery_worker_gc_collections_total", (*labels, str(generation)), collections)
    if shared is not None:
        samples.add("celery_worker_memory_pss_bytes", labels, shared.pss_bytes)
        samples.add("celery_worker_memory_uss_bytes", labels, shared.uss_bytes)


def add_report(samples: Samples, worker: WorkerView, report: WorkerReport) -> None:
    name = worker.nodename
    for reason, count in sorted(report.children_exited.items()):
        samples.add("celery_worker_children_exited_total", (name, reason), count)
    for lost in report.lost:
        samples.add("celery_task_lost_total", (name, lost.name, lost.reason), lost.count)
    samples.add("celery_agent_overhead_seconds_total", (name,), report.overhead_seconds)
    samples.add("celery_agent_reports_dropped_total", (name,), report.reports_dropped)
    samples.add("celery_agent_errors_total", (name,), report.errors)
    for task in by_name(report.tasks):
        add_task_memory(samples, worker, report, task)
    if worker.live:
        samples.add(
            "celery_worker_child_memory_limit_bytes", (name,), report.child_memory_limit_bytes
        )
        for counted in report.objects:
            samples.add("celery_worker_objects", (name, counted.type), counted.count)
            samples.add("celery_worker_objects_growth", (name, counted.type), counted.growth)
        for container in report.containers:
            samples.add("celery_worker_container_items", (name, container.path), container.items)
