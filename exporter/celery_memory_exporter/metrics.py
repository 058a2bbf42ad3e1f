"""Snapshot -> metric families, made anew for each scrape: no metric object holds state, so nothing gone is ever shown.

What is unknown is absent. Counters and histograms are what the workers tell, cumulative since they started; a restarted worker's
start at zero again, which ``rate()`` understands.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator

import celery
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from celery_memory_exporter import __version__
from celery_memory_exporter.bounds import by_name
from celery_memory_exporter.case import survivors_per_run
from celery_memory_exporter.catalogue import BY_NAME, FAMILIES, Family
from celery_memory_exporter.diagnosis import diagnose
from celery_memory_exporter.exposition import number
from celery_memory_exporter.report import MEAN_BLOCK_BYTES, Evidence, Histogram, ProcessReport, TaskReport, WorkerReport
from celery_memory_exporter.snapshot import Snapshot, WorkerView
from celery_memory_exporter.verdict import Diagnosis

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
#: Family by outcome; a failure is counted by its exception.
OUTCOME_FAMILIES = {
    "succeeded": "celery_task_succeeded_total",
    "retried": "celery_task_retried_total",
    "rejected": "celery_task_rejected_total",
}


def empty_metric(family: Family) -> Metric:
    """The family without samples. prometheus_client names counters and infos without their suffix."""
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    return Metric(name.removesuffix("_info") if family.kind == "info" else name, family.help, family.kind)


class Rows:
    """Samples by family, checked against the catalogue."""

    def __init__(self) -> None:
        self._samples: dict[str, list[Sample]] = {}

    def add(self, name: str, values: tuple[str, ...], value: float | None) -> None:
        """``values`` are the labels' in the catalogue's order. A value that is ``None`` is unknown and makes no sample."""
        if value is not None:
            self._of(name).append(Sample(name, labels_of(name, values), float(value)))

    def add_histogram(self, name: str, values: tuple[str, ...], bounds: list[float], histogram: Histogram | None) -> None:
        """Buckets, and their count and sum unless a bound is negative: then the sum could fall, and OpenMetrics forbids both."""
        if histogram is None:
            return
        labels = labels_of(name, values)
        samples = self._of(name)
        bucket = f"{name}_bucket"
        count = 0
        for bound, each in zip([*bounds, float("inf")], histogram.counts, strict=True):
            count += each
            samples.append(Sample(bucket, {**labels, "le": number(bound)}, float(count)))
        if bounds[0] >= 0:
            samples.append(Sample(f"{name}_count", labels, float(count)))
            samples.append(Sample(f"{name}_sum", labels, float(histogram.sum)))

    def metrics(self) -> Iterator[Metric]:
        """In the catalogue's order; families without samples are left out."""
        for family in FAMILIES:
            if family.name in self._samples:
                metric = empty_metric(family)
                metric.samples = self._samples[family.name]
                yield metric

    def _of(self, family: str) -> list[Sample]:
        return self._samples.setdefault(family, [])


def labels_of(family: str, values: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(BY_NAME[family].labels, values, strict=True))


class FleetCollector(Collector):
    """Shows what ``snapshot`` answers, for a prometheus_client registry."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """All families, without a scrape: what makes ``name[]`` find them."""
        return [empty_metric(family) for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        rows = Rows()
        snapshot = self._snapshot()
        for worker in snapshot.workers:
            add_worker(rows, worker)
        add_diagnosis(rows, diagnose(snapshot))
        add_self(rows, snapshot)
        return rows.metrics()


def add_worker(rows: Rows, worker: WorkerView) -> None:
    report = worker.report
    name = worker.nodename
    told = (
        (report.pool, str(report.concurrency), report.python_version, report.celery_version, report.agent_version) if report else ()
    )
    rows.add("celery_worker_info", (name, worker.hostname, *(told or ("",) * 5)), 1)
    rows.add("celery_worker_up", (name, worker.hostname), worker.up)
    rows.add("celery_worker_tasks_active", (name, worker.hostname), worker.active_tasks)
    for process in worker.processes:
        add_process(rows, name, process.figures)
        if process.shared is not None:
            rows.add("celery_worker_memory_pss_bytes", (name, process.figures.process), process.shared.pss_bytes)
            rows.add("celery_worker_memory_uss_bytes", (name, process.figures.process), process.shared.uss_bytes)
    rows.add("celery_worker_cgroup_memory_limit_bytes", (name,), worker.cgroup.limit_bytes)
    rows.add("celery_worker_cgroup_memory_usage_bytes", (name,), worker.cgroup.usage_bytes)
    rows.add("celery_worker_cgroup_memory_working_set_bytes", (name,), worker.cgroup.working_set_bytes)
    rows.add("celery_worker_cgroup_oom_kills_total", (name,), worker.cgroup.oom_kills)
    rows.add("celery_worker_children_started_total", (name,), worker.children_started)
    if report is not None:
        add_report(rows, worker, report)


def add_process(rows: Rows, worker: str, figures: ProcessReport) -> None:
    for field, family in PROCESS_FAMILIES.items():
        rows.add(family, (worker, figures.process), getattr(figures, field))
    for generation, collections in enumerate(figures.gc_collections or ()):
        rows.add("celery_worker_gc_collections_total", (worker, figures.process, str(generation)), collections)


def add_report(rows: Rows, worker: WorkerView, report: WorkerReport) -> None:
    name = worker.nodename
    for reason, count in sorted(report.children_exited.items()):
        rows.add("celery_worker_children_exited_total", (name, reason), count)
    for lost in report.lost:
        rows.add("celery_task_lost_total", (name, lost.name, lost.reason), lost.count)
    rows.add("celery_agent_overhead_seconds_total", (name,), report.overhead_seconds)
    rows.add("celery_agent_reports_dropped_total", (name,), report.reports_dropped)
    rows.add("celery_agent_errors_total", (name,), report.errors)
    for task in report.tasks:
        add_traffic(rows, worker, report, task)
    for task in by_name(report.tasks):
        add_task_memory(rows, worker, report, task)
    if worker.live:
        rows.add("celery_worker_child_memory_limit_bytes", (name,), report.child_memory_limit_bytes)
        for counted in report.objects:
            rows.add("celery_worker_objects", (name, counted.type), counted.count)
            rows.add("celery_worker_objects_growth", (name, counted.type), counted.growth)
        for container in report.containers:
            rows.add("celery_worker_container_items", (name, container.path), container.items)


def add_traffic(rows: Rows, worker: WorkerView, report: WorkerReport, task: TaskReport) -> None:
    labels = (worker.nodename, task.name, worker.hostname, task.queue)
    for outcome, family in OUTCOME_FAMILIES.items():
        rows.add(family, labels, task.runs.get(outcome, 0))
    for exception, count in sorted(task.exceptions.items()):
        rows.add("celery_task_failed_total", (*labels, exception), count)
    rows.add_histogram("celery_task_runtime", labels, report.bounds.runtime_seconds, task.runtime)


def add_task_memory(rows: Rows, worker: WorkerView, report: WorkerReport, task: TaskReport) -> None:
    labels = (worker.nodename, task.name)
    rows.add_histogram("celery_task_memory_delta_bytes", labels, report.bounds.delta_bytes, task.delta)
    rows.add("celery_task_memory_growth_bytes_total", labels, task.growth_bytes)
    rows.add("celery_task_memory_release_bytes_total", labels, task.release_bytes)
    rows.add_histogram("celery_task_memory_peak_bytes", labels, report.bounds.peak_bytes, task.peak)
    rows.add("celery_task_memory_audited_runs_total", labels, task.audited_runs)
    if worker.live:
        rows.add("celery_task_memory_retained_bytes", labels, retained_bytes(task))
        rows.add("celery_task_memory_retained_blocks", labels, task.retained_blocks)
        rows.add("celery_task_memory_retained_runs", labels, task.retained_runs)
        if task.evidence is not None:
            add_evidence(rows, labels, task.evidence)


def add_evidence(rows: Rows, labels: tuple[str, str], evidence: Evidence) -> None:
    for kind, per_run in sorted(survivors_per_run(evidence).items()):
        rows.add("celery_task_retained_objects", (*labels, kind), per_run)
    for site in evidence.sites:
        if site.figure == "bytes":
            rows.add("celery_task_retained_site_bytes", (*labels, site.site), evidence.per_run(site))


def add_diagnosis(rows: Rows, diagnosis: Diagnosis) -> None:
    for suspect in diagnosis.suspects:
        labels = (suspect.worker, suspect.task or "", suspect.growth_class)
        rows.add("celery_leak_suspect", (*labels, suspect.holder), 1)
        rows.add("celery_leak_bytes_per_run", labels, suspect.retained_bytes_per_run)
        rows.add("celery_leak_bytes_per_hour", labels, suspect.retained_bytes_per_hour)


def retained_bytes(task: TaskReport) -> float:
    """Live bytes left behind: the C heap's exactly, Python's small objects by the mean size of a block."""
    return (task.retained_native_bytes or 0.0) + task.retained_blocks * MEAN_BLOCK_BYTES


def add_self(rows: Rows, snapshot: Snapshot) -> None:
    prefix = "celery_memory_exporter_"
    rows.add(f"{prefix}build_info", (__version__, platform.python_version(), celery.__version__), 1)
    rows.add(f"{prefix}workers", (), len(snapshot.workers))
    for source, view in sorted(snapshot.sources.items()):
        rows.add(f"{prefix}source_up", (source,), view.up)
        rows.add(f"{prefix}collect_duration_seconds", (source,), view.duration_seconds)
    rows.add(f"{prefix}reports_received_total", (), snapshot.reports_received)
    for reason, count in snapshot.reports_rejected.items():
        rows.add(f"{prefix}reports_rejected_total", (reason,), count)
    for group, count in sorted(snapshot.events_received.items()):
        rows.add(f"{prefix}events_received_total", (group,), count)
    rows.add(f"{prefix}event_lag_seconds", (), snapshot.event_lag_seconds)
    rows.add(f"{prefix}broker_reconnects_total", (), snapshot.broker_reconnects)
    for family, count in sorted(snapshot.dropped.items()):
        rows.add(f"{prefix}series_dropped_total", (family,), count)
