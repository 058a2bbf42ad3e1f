"""Snapshot -> metric families, made anew for each scrape: no metric object holds state, so nothing
gone is ever shown.

What is unknown is absent. Counters and histograms are what the workers tell, cumulative since they
started; a restarted worker's start at zero again, which ``rate()`` understands.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence

import celery
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from celery_memory_exporter import __version__
from celery_memory_exporter.common.report import (
    Evidence,
    Histogram,
    ProcessReport,
    TaskReport,
    Traffic,
    WorkerReport,
)
from celery_memory_exporter.common.traffic import COUNTERS
from celery_memory_exporter.diagnosis.judge import diagnose
from celery_memory_exporter.diagnosis.rules import survivors_per_run
from celery_memory_exporter.diagnosis.verdict import Diagnosis
from celery_memory_exporter.fleet.snapshot import (
    QueueView,
    SentView,
    Snapshot,
    TrafficView,
    WorkerView,
)
from celery_memory_exporter.fleet.sums import by_name
from celery_memory_exporter.metrics.catalogue import (
    BY_NAME,
    FAMILIES,
    HIGHEST,
    NOT_TOGETHER,
    Family,
)
from celery_memory_exporter.metrics.exposition import number

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
#: Families that count rows of traffic, by the row's field.
TRAFFIC_FAMILIES = {f"celery_task_{field}_total": field for field in COUNTERS.values()}


def empty_metric(family: Family) -> Metric:
    """The family without samples. prometheus_client names counters and infos without their
    suffix."""
    name = family.name.removesuffix("_total") if family.kind == "counter" else family.name
    return Metric(
        name.removesuffix("_info") if family.kind == "info" else name, family.help, family.kind
    )


class Rows:
    """Samples by family, checked against the catalogue.

    ``broker`` is the label's value from now on; ``None`` leaves it out. With ``together``, several
    workers are shown as one: a sample that is there already is one with a new one of the same
    labels. ``grouped``: what is added now is such a worker's.
    """

    def __init__(self, *, together: bool = False) -> None:
        self.broker: str | None = None
        self.grouped = False
        self._together = together
        self._samples: dict[str, list[Sample]] = {}
        self._places: dict[tuple[str, tuple[str, ...]], tuple[list[Sample], int]] = {}

    def add(self, name: str, values: tuple[str, ...], value: float | None) -> None:
        """``values`` are the labels' in the catalogue's order. A value that is ``None`` is unknown
        and makes no sample."""
        if value is not None:
            self._put(name, name, self._labels(name, values), float(value))

    def add_summary(self, name: str, values: tuple[str, ...], count: int, total: float) -> None:
        labels = self._labels(name, values)
        self._put(name, f"{name}_count", labels, float(count))
        self._put(name, f"{name}_sum", labels, float(total))

    def add_histogram(
        self,
        name: str,
        values: tuple[str, ...],
        bounds: Sequence[float],
        histogram: Histogram | None,
    ) -> None:
        """Buckets, and their count and sum unless a bound is negative: then the sum could fall, and
        OpenMetrics forbids both."""
        if histogram is None:
            return
        labels = self._labels(name, values)
        bucket = f"{name}_bucket"
        count = 0
        for bound, each in zip([*bounds, float("inf")], histogram.counts, strict=True):
            count += each
            self._put(name, bucket, {**labels, "le": number(bound)}, float(count))
        if bounds[0] >= 0:
            self._put(name, f"{name}_count", labels, float(count))
            self._put(name, f"{name}_sum", labels, float(histogram.sum))

    def metrics(self) -> Iterator[Metric]:
        """In the catalogue's order; families without samples are left out."""
        for family in FAMILIES:
            if family.name in self._samples:
                metric = empty_metric(family)
                metric.samples = self._samples[family.name]
                yield metric

    def _put(self, family: str, name: str, labels: dict[str, str], value: float) -> None:
        if self.grouped and family in NOT_TOGETHER:
            return
        samples = self._samples.setdefault(family, [])
        if self._together:
            place = self._places.setdefault((name, tuple(labels.values())), (samples, len(samples)))
            if place[1] < len(samples):
                before = samples[place[1]].value
                value = max(before, value) if family in HIGHEST else before + value
                samples[place[1]] = Sample(name, labels, value)
                return
        samples.append(Sample(name, labels, value))

    def _labels(self, family: str, values: tuple[str, ...]) -> dict[str, str]:
        labels = dict(zip(BY_NAME[family].labels, values, strict=True))
        return labels if self.broker is None else {"broker": self.broker, **labels}


class FleetCollector(Collector):
    """Shows what ``snapshot`` answers, for a prometheus_client registry."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterable[Metric]:
        """All families, without a scrape: what makes ``name[]`` find them."""
        return [empty_metric(family) for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot()
        rows = Rows(together=any(worker.grouped for worker in snapshot.workers))
        for broker, part in by_broker(snapshot):
            rows.broker = broker if snapshot.several_brokers else None
            add_broker(rows, part)
        rows.broker = None
        add_self(rows, snapshot)
        return rows.metrics()


def by_broker(snapshot: Snapshot) -> Iterator[tuple[str, Snapshot]]:
    """What there is at each broker; workers that only the process table shows are at none."""
    parts: tuple[tuple[WorkerView | QueueView | SentView, ...], ...] = (
        snapshot.workers,
        snapshot.queues,
        snapshot.sent,
    )
    for broker in sorted({each.broker for part in parts for each in part}):
        yield (
            broker,
            dataclasses.replace(
                snapshot,
                workers=tuple(each for each in snapshot.workers if each.broker == broker),
                queues=tuple(each for each in snapshot.queues if each.broker == broker),
                sent=tuple(each for each in snapshot.sent if each.broker == broker),
            ),
        )


def add_broker(rows: Rows, snapshot: Snapshot) -> None:
    for worker in snapshot.workers:
        rows.grouped = worker.grouped
        add_worker(rows, worker)
    rows.grouped = False
    add_diagnosis(rows, diagnose(snapshot))
    for sent in snapshot.sent:
        rows.add("celery_task_sent_total", (sent.name, sent.hostname, sent.queue), sent.count)
    for queue in snapshot.queues:
        add_queue(rows, queue)


def add_queue(rows: Rows, queue: QueueView) -> None:
    reading = queue.reading
    labels = (reading.name,)
    rows.add("celery_queue_length", labels, reading.length)
    for priority, length in sorted(reading.by_priority.items()):
        rows.add("celery_queue_length_by_priority", (reading.name, str(priority)), length)
    rows.add("celery_queue_oldest_task_age_seconds", labels, reading.oldest_seconds)
    rows.add("celery_active_consumer_count", labels, reading.consumers)
    rows.add("celery_active_worker_count", labels, queue.workers)
    rows.add("celery_active_process_count", labels, queue.processes)


def add_worker(rows: Rows, worker: WorkerView) -> None:
    report = worker.report
    name = worker.nodename
    if worker.traffic is not None:
        for row in worker.traffic.rows:
            add_traffic(rows, worker, worker.traffic, row)
    rows.add("celery_worker_cgroup_oom_kills_total", (name,), worker.cgroup.oom_kills)
    rows.add("celery_worker_children_started_total", (name,), worker.children_started)
    if report is not None:
        add_report(rows, worker, report)
    if not worker.gone:
        add_state(rows, worker)
    rows.add("celery_memory_exporter_events_lost_total", (name,), worker.events_lost)


def add_state(rows: Rows, worker: WorkerView) -> None:
    """What it is now."""
    name, report = worker.nodename, worker.report
    pool, concurrency = (
        worker.pool or "",
        "" if worker.concurrency is None else str(worker.concurrency),
    )
    versions = (
        (report.python_version, report.celery_version, report.agent_version)
        if report
        else ("",) * 3
    )
    rows.add("celery_worker_info", (name, worker.hostname, pool, concurrency, *versions), 1)
    rows.add("celery_worker_up", (name, worker.hostname), worker.up)
    rows.add("celery_worker_tasks_active", (name, worker.hostname), worker.active_tasks)
    rows.add("celery_worker_prefetched_tasks", (name,), worker.prefetched_tasks)
    rows.add("celery_worker_concurrency", (name,), worker.concurrency)
    for running in worker.running:
        rows.add("celery_task_running", (name, running.name), running.count)
        rows.add("celery_task_running_oldest_seconds", (name, running.name), running.oldest_seconds)
    for task, estimate in sorted(worker.estimates.items()):
        rows.add("celery_task_memory_estimate_bytes", (name, task), estimate.per_run)
        rows.add("celery_task_memory_estimate_error_bytes", (name, task), estimate.error)
        rows.add("celery_task_memory_estimate_runs", (name, task), estimate.runs)
    for process in worker.processes:
        add_process(rows, name, process.figures)
        if process.shared is not None:
            rows.add(
                "celery_worker_memory_pss_bytes",
                (name, process.figures.process),
                process.shared.pss_bytes,
            )
            rows.add(
                "celery_worker_memory_uss_bytes",
                (name, process.figures.process),
                process.shared.uss_bytes,
            )
    rows.add("celery_worker_cgroup_memory_limit_bytes", (name,), worker.cgroup.limit_bytes)
    rows.add("celery_worker_cgroup_memory_usage_bytes", (name,), worker.cgroup.usage_bytes)
    rows.add(
        "celery_worker_cgroup_memory_working_set_bytes", (name,), worker.cgroup.working_set_bytes
    )


def add_process(rows: Rows, worker: str, figures: ProcessReport) -> None:
    for field, family in PROCESS_FAMILIES.items():
        rows.add(family, (worker, figures.process), getattr(figures, field))
    for generation, collections in enumerate(figures.gc_collections or ()):
        rows.add(
            "celery_worker_gc_collections_total",
            (worker, figures.process, str(generation)),
            collections,
        )


def add_report(rows: Rows, worker: WorkerView, report: WorkerReport) -> None:
    name = worker.nodename
    for reason, count in sorted(report.children_exited.items()):
        rows.add("celery_worker_children_exited_total", (name, reason), count)
    for lost in report.lost:
        rows.add("celery_task_lost_total", (name, lost.name, lost.reason), lost.count)
    rows.add("celery_agent_overhead_seconds_total", (name,), report.overhead_seconds)
    rows.add("celery_agent_reports_dropped_total", (name,), report.reports_dropped)
    rows.add("celery_agent_errors_total", (name,), report.errors)
    for task in by_name(report.tasks):
        add_task_memory(rows, worker, report, task)
    if worker.live:
        rows.add("celery_worker_child_memory_limit_bytes", (name,), report.child_memory_limit_bytes)
        for counted in report.objects:
            rows.add("celery_worker_objects", (name, counted.type), counted.count)
            rows.add("celery_worker_objects_growth", (name, counted.type), counted.growth)
        for container in report.containers:
            rows.add("celery_worker_container_items", (name, container.path), container.items)


def add_traffic(rows: Rows, worker: WorkerView, traffic: TrafficView, row: Traffic) -> None:
    labels = (worker.nodename, row.name, worker.hostname, row.queue)
    for family, field in TRAFFIC_FAMILIES.items():
        rows.add(family, labels, getattr(row, field))
    # The zero is there from the first event on, so that a success rate has both its parts; as the
    # best-known exporter has it.
    for exception, count in sorted({"": 0, **row.failed}.items()):
        rows.add("celery_task_failed_total", (*labels, exception), count)
    rows.add_histogram("celery_task_runtime", labels, traffic.runtime_seconds, row.runtime)
    if any(row.queue_wait.counts):
        rows.add_histogram(
            "celery_task_queue_wait_time", labels, traffic.queue_wait_seconds, row.queue_wait
        )


def add_task_memory(rows: Rows, worker: WorkerView, report: WorkerReport, task: TaskReport) -> None:
    labels = (worker.nodename, task.name)
    rows.add_histogram(
        "celery_task_memory_delta_bytes", labels, report.bounds.delta_bytes, task.delta
    )
    rows.add("celery_task_memory_growth_bytes_total", labels, task.growth_bytes)
    rows.add("celery_task_memory_release_bytes_total", labels, task.release_bytes)
    rows.add_histogram("celery_task_memory_peak_bytes", labels, report.bounds.peak_bytes, task.peak)
    rows.add("celery_task_memory_audited_runs_total", labels, task.audited_runs)
    for outcome, seconds in sorted(task.seconds.items()):
        rows.add_summary(
            "celery_task_outcome_runtime_seconds",
            (*labels, outcome),
            task.runs.get(outcome, 0),
            seconds,
        )
    if worker.live:
        rows.add("celery_task_memory_retained_bytes", labels, task.retained_bytes)
        rows.add("celery_task_memory_retained_blocks", labels, task.retained_blocks)
        rows.add("celery_task_memory_retained_runs", labels, task.retained_runs)
        if task.evidence is not None:
            add_evidence(rows, labels, task.evidence)


def add_evidence(rows: Rows, labels: tuple[str, str], evidence: Evidence) -> None:
    for kind, per_run in sorted(survivors_per_run(evidence).items()):
        rows.add("celery_task_retained_objects", (*labels, kind), per_run)
    for site in evidence.sites:
        if site.figure == "bytes":
            rows.add(
                "celery_task_retained_site_bytes", (*labels, site.site), evidence.per_run(site)
            )


def add_diagnosis(rows: Rows, diagnosis: Diagnosis) -> None:
    for suspect in diagnosis.suspects:
        labels = (suspect.worker, suspect.task or "", suspect.growth_class)
        rows.add("celery_leak_suspect", (*labels, suspect.holder), 1)
        rows.add("celery_leak_bytes_per_run", labels, suspect.retained_bytes_per_run)
        rows.add("celery_leak_bytes_per_hour", labels, suspect.retained_bytes_per_hour)


def add_self(rows: Rows, snapshot: Snapshot) -> None:
    prefix = "celery_memory_exporter_"
    rows.add(f"{prefix}build_info", (__version__, platform.python_version(), celery.__version__), 1)
    rows.add(f"{prefix}workers", (), sum(not worker.gone for worker in snapshot.workers))
    for source, view in sorted(snapshot.sources.items()):
        rows.add(f"{prefix}source_up", (source,), view.up)
        rows.add(f"{prefix}collect_duration_seconds", (source,), view.duration_seconds)
        for what, denied in sorted(view.denied.items()):
            rows.add(f"{prefix}access_denied", (what,), denied)
    rows.add(f"{prefix}reports_received_total", (), snapshot.reports_received)
    for reason, count in snapshot.reports_rejected.items():
        rows.add(f"{prefix}reports_rejected_total", (reason,), count)
    for group, count in sorted(snapshot.events_received.items()):
        rows.add(f"{prefix}events_received_total", (group,), count)
    for reason, count in snapshot.events_ignored.items():
        rows.add(f"{prefix}events_ignored_total", (reason,), count)
    rows.add(f"{prefix}tasks_in_flight", (), snapshot.tasks_in_flight)
    rows.add(f"{prefix}event_lag_seconds", (), snapshot.event_lag_seconds)
    rows.add(f"{prefix}broker_reconnects_total", (), snapshot.broker_reconnects)
    for family, count in sorted(snapshot.dropped.items()):
        rows.add(f"{prefix}series_dropped_total", (family,), count)
