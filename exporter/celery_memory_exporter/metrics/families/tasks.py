"""Families of task types: memory of their runs, verdicts, and what becomes of their messages."""

from __future__ import annotations

from celery_memory_exporter.metrics.families.family import Family


def _task(name: str, kind: str, doc: str, *labels: str) -> Family:
    return Family(f"celery_task_{name}", kind, ("worker", "name", *labels), doc)


def _traffic(name: str, kind: str, doc: str, *labels: str) -> Family:
    return _task(name, kind, doc, "hostname", "queue_name", *labels)


MEMORY: tuple[Family, ...] = (
    _task(
        "memory_delta_bytes",
        "histogram",
        "Resident memory after a run minus before, of runs alone in their process.",
    ),
    _task(
        "memory_growth_bytes_total",
        "counter",
        "Sum of the positive differences of resident memory over runs.",
    ),
    _task(
        "memory_release_bytes_total",
        "counter",
        "Sum of the negative differences of resident memory over runs.",
    ),
    _task(
        "memory_peak_bytes", "histogram", "Highest resident memory during a run above its start."
    ),
    _task(
        "memory_retained_bytes",
        "gauge",
        "Live memory that runs left behind in processes alive now: C heap, and Python blocks at 90 "
        "bytes.",
    ),
    _task(
        "memory_retained_blocks",
        "gauge",
        "Live Python blocks that runs left behind in processes alive now.",
    ),
    _task(
        "memory_retained_runs",
        "gauge",
        "Runs behind the retained figures: in processes alive now, without each one's first.",
    ),
    _task(
        "memory_audited_runs_total",
        "counter",
        "Runs that were audited: measured exactly, by what outlived them.",
    ),
    _task(
        "retained_objects",
        "gauge",
        "Objects that outlive an audited run, of the most frequent types.",
        "object_type",
    ),
    _task(
        "retained_site_bytes",
        "gauge",
        "Bytes that a deep-audited run leaves behind, by the line that allocated them.",
        "site",
    ),
    _task(
        "lost_total",
        "counter",
        "Runs whose child died under them, by why the child ended.",
        "reason",
    ),
    _task(
        "memory_estimate_bytes",
        "gauge",
        "Resident memory that a run adds, ESTIMATED by least squares over events and process "
        "table, where no agent measures.",
    ),
    _task(
        "memory_estimate_error_bytes",
        "gauge",
        "Standard error of the estimate: below three of them it tells nothing.",
    ),
    _task("memory_estimate_runs", "gauge", "Runs behind the estimate."),
)

VERDICTS: tuple[Family, ...] = (
    Family(
        "celery_leak_suspect",
        "gauge",
        ("worker", "name", "growth_class", "holder"),
        "1 for each task type that leaks; an empty name where only a process grows.",
    ),
    Family(
        "celery_leak_bytes_per_run",
        "gauge",
        ("worker", "name", "growth_class"),
        "What a suspect's run leaves behind.",
    ),
    Family(
        "celery_leak_bytes_per_hour",
        "gauge",
        ("worker", "name", "growth_class"),
        "The same at the rate that it runs.",
    ),
)

#: As danihodovic/celery-exporter names it.
TRAFFIC: tuple[Family, ...] = (
    Family(
        "celery_task_sent_total",
        "counter",
        ("name", "hostname", "queue_name"),
        "Tasks that clients sent (task_send_sent_event). hostname is generic unless labels.senders "
        "is set.",
    ),
    _traffic("received_total", "counter", "Tasks that the worker received."),
    _traffic("started_total", "counter", "Tasks that began to run."),
    _traffic("succeeded_total", "counter", "Tasks that succeeded."),
    _traffic(
        "failed_total",
        "counter",
        "Tasks that failed, by exception class; time limits and lost children included.",
        "exception",
    ),
    _traffic("retried_total", "counter", "Tasks that asked to be retried."),
    _traffic("rejected_total", "counter", "Tasks whose message was rejected."),
    _traffic("revoked_total", "counter", "Tasks that were revoked, expired or terminated."),
    _traffic("runtime", "histogram", "Runtime of tasks that succeeded, in seconds."),
    _traffic(
        "queue_wait_time",
        "histogram",
        "From when a task was sent, or due, until it started, in seconds; where that is told.",
    ),
    _task(
        "outcome_runtime_seconds",
        "summary",
        "Runtime by outcome, failed runs included; of workers with an agent.",
        "outcome",
    ),
    _task("running", "gauge", "Tasks that run now."),
    _task(
        "running_oldest_seconds",
        "gauge",
        "For how long the oldest task that runs now has been running.",
    ),
)
