"""Samples of task types: memory of their runs, what becomes of their messages, what runs now."""

from __future__ import annotations

from celery_memory_exporter.common.evidence import Evidence
from celery_memory_exporter.common.names import hostname_of
from celery_memory_exporter.common.report import Bounds, TaskReport
from celery_memory_exporter.common.traffic import COUNTERS
from celery_memory_exporter.diagnosis.rules import survivors_per_run
from celery_memory_exporter.fleet.snapshot import WorkerView
from celery_memory_exporter.fleet.totals import TrafficView
from celery_memory_exporter.metrics.samples import Samples

#: Field of ``Traffic``, by the family that counts it.
TRAFFIC_FAMILIES = {f"celery_task_{field}_total": field for field in COUNTERS.values()}


def add_traffic(samples: Samples, worker: str, traffic: TrafficView) -> None:
    """What became of the messages of each task type on each queue."""
    hostname = hostname_of(worker)
    for each in traffic.rows:
        labels = (worker, each.name, hostname, each.queue)
        for family, field in TRAFFIC_FAMILIES.items():
            samples.add(family, labels, getattr(each, field))
        # The zero is there from the first event on, so that a success rate has both its parts; as
        # danihodovic/celery-exporter has it.
        for exception, count in sorted({"": 0, **each.failed}.items()):
            samples.add("celery_task_failed_total", (*labels, exception), count)
        samples.add_histogram("celery_task_runtime", labels, traffic.runtime_seconds, each.runtime)
        if any(each.queue_wait.counts):
            samples.add_histogram(
                "celery_task_queue_wait_time", labels, traffic.queue_wait_seconds, each.queue_wait
            )


def add_task_memory(samples: Samples, worker: str, bounds: Bounds, task: TaskReport) -> None:
    """What is counted of the memory of its runs."""
    labels = (worker, task.name)
    samples.add_histogram("celery_task_memory_delta_bytes", labels, bounds.delta_bytes, task.delta)
    samples.add("celery_task_memory_growth_bytes_total", labels, task.growth_bytes)
    samples.add("celery_task_memory_release_bytes_total", labels, task.release_bytes)
    samples.add_histogram("celery_task_memory_peak_bytes", labels, bounds.peak_bytes, task.peak)
    samples.add("celery_task_memory_audited_runs_total", labels, task.audited_runs)
    for outcome, seconds in sorted(task.seconds.items()):
        samples.add_summary(
            "celery_task_outcome_runtime_seconds",
            (*labels, outcome),
            task.runs.get(outcome, 0),
            seconds,
        )


def add_retained(samples: Samples, worker: str, task: TaskReport) -> None:
    """What its runs have left behind in processes that are alive."""
    labels = (worker, task.name)
    samples.add("celery_task_memory_retained_bytes", labels, task.retained_bytes)
    samples.add("celery_task_memory_retained_blocks", labels, task.retained_blocks)
    samples.add("celery_task_memory_retained_runs", labels, task.retained_runs)
    if task.evidence is not None:
        add_evidence(samples, labels, task.evidence)


def add_evidence(samples: Samples, labels: tuple[str, str], evidence: Evidence) -> None:
    for kind, per_run in sorted(survivors_per_run(evidence).items()):
        samples.add("celery_task_retained_objects", (*labels, kind), per_run)
    for site in evidence.sites:
        if site.figure == "bytes":
            samples.add(
                "celery_task_retained_site_bytes", (*labels, site.site), evidence.per_run(site)
            )


def add_present(samples: Samples, worker: WorkerView) -> None:
    """What runs now, and what the exporter estimates where no agent measures."""
    for running in worker.running:
        labels = (worker.nodename, running.name)
        samples.add("celery_task_running", labels, running.count)
        samples.add("celery_task_running_oldest_seconds", labels, running.oldest_seconds)
    for task, estimate in sorted(worker.estimates.items()):
        labels = (worker.nodename, task)
        samples.add("celery_task_memory_estimate_bytes", labels, estimate.per_run)
        samples.add("celery_task_memory_estimate_error_bytes", labels, estimate.error)
        samples.add("celery_task_memory_estimate_runs", labels, estimate.runs)
