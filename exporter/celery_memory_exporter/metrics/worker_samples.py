"""Samples of workers and their processes."""

from __future__ import annotations

from celery_memory_exporter.common.names import hostname_of
from celery_memory_exporter.common.report import WorkerReport
from celery_memory_exporter.fleet.snapshot import GroupView, ProcessView, WorkerView
from celery_memory_exporter.fleet.sums import by_name
from celery_memory_exporter.fleet.totals import AgentTotals, Totals
from celery_memory_exporter.metrics.samples import Samples
from celery_memory_exporter.metrics.task_samples import (
    add_present,
    add_retained,
    add_task_memory,
    add_traffic,
)

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


def add_group(samples: Samples, group: GroupView) -> None:
    """What its members are, and what was counted."""
    for worker in group.members:
        add_worker(samples, worker)
    if group.kept is not None:
        add_counters(samples, group.nodename, group.kept)
        if group.kept.agent is not None:
            add_agent(samples, group.nodename, group.kept.agent, live=False)


def add_worker(samples: Samples, worker: WorkerView) -> None:
    name, report = worker.nodename, worker.report
    add_counters(samples, name, worker)
    if report is not None:
        add_agent(samples, name, report, live=worker.live)
        if worker.live:
            add_reported(samples, name, report)
    add_state(samples, worker)
    add_present(samples, worker)
    for process in worker.processes:
        add_process(samples, name, process)
    samples.add("celery_memory_exporter_events_lost_total", (name,), worker.events_lost)


def add_counters(samples: Samples, worker: str, counted: WorkerView | Totals) -> None:
    """What is counted with and without an agent."""
    samples.add("celery_worker_cgroup_oom_kills_total", (worker,), counted.cgroup.oom_kills)
    samples.add("celery_worker_children_started_total", (worker,), counted.children_started)
    if counted.traffic is not None:
        add_traffic(samples, worker, counted.traffic)


def add_state(samples: Samples, worker: WorkerView) -> None:
    """What the worker is now."""
    name, report, hostname = worker.nodename, worker.report, hostname_of(worker.nodename)
    concurrency = "" if worker.concurrency is None else str(worker.concurrency)
    versions = (
        (report.python_version, report.celery_version, report.agent_version)
        if report
        else ("",) * 3
    )
    info = (name, hostname, worker.pool or "", concurrency, *versions)
    samples.add("celery_worker_info", info, 1)
    samples.add("celery_worker_up", (name, hostname), worker.up)
    samples.add("celery_worker_tasks_active", (name, hostname), worker.active_tasks)
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


def add_agent(
    samples: Samples, worker: str, agent: WorkerReport | AgentTotals, *, live: bool
) -> None:
    """What an agent counts, and if the worker is ``live`` what its runs have left behind."""
    for reason, count in sorted(agent.children_exited.items()):
        samples.add("celery_worker_children_exited_total", (worker, reason), count)
    for lost in agent.lost:
        samples.add("celery_task_lost_total", (worker, lost.name, lost.reason), lost.count)
    samples.add("celery_agent_overhead_seconds_total", (worker,), agent.overhead_seconds)
    samples.add("celery_agent_reports_dropped_total", (worker,), agent.reports_dropped)
    samples.add("celery_agent_errors_total", (worker,), agent.errors)
    for reason, count in sorted(agent.audits_discarded.items()):
        samples.add("celery_agent_audits_discarded_total", (worker, reason), count)
    for task in by_name(agent.tasks):
        add_task_memory(samples, worker, agent.bounds, task)
        if live:
            add_retained(samples, worker, task)


def add_reported(samples: Samples, worker: str, report: WorkerReport) -> None:
    """What the agent alone can see of the worker now."""
    limit = report.child_memory_limit_bytes
    samples.add("celery_worker_child_memory_limit_bytes", (worker,), limit)
    for counted in report.objects:
        samples.add("celery_worker_objects", (worker, counted.type), counted.count)
        samples.add("celery_worker_objects_growth", (worker, counted.type), counted.growth)
    for container in report.containers:
        samples.add("celery_worker_container_items", (worker, container.path), container.items)
