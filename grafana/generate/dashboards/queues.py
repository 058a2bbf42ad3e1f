"""How do tasks and queues do?"""

from __future__ import annotations

from grafana.generate import fields, layout, panels
from grafana.generate.fields import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, steps
from grafana.generate.queries import Json, query, risen

UID = "celery-memory-queues"
QUEUE = layout.label_variable("queue", "Queue", "celery_task_received_total{$task}", "queue_name")
OUTCOMES = ("succeeded", "failed", "retried", "rejected", "revoked")
COLORS = {
    "succeeded": GREEN,
    "failed": RED,
    "retried": ORANGE,
    "rejected": PURPLE,
    "revoked": GREY,
    "received": BLUE,
}


def rate(outcome: str, by: str, over: str = "$__rate_interval") -> str:
    return f"sum by ({by}) (rate(celery_task_{outcome}_total{{$traffic}}[{over}]))"


def quantiles(family: str) -> list[Json]:
    """By task type, of the whole choice."""
    buckets = f"sum by (le) (rate({family}_bucket{{$traffic}}[$__rate_interval]))"
    return [
        query(f"histogram_quantile({share}, {buckets})", f"p{100 * share:g}")
        for share in (0.5, 0.95, 0.99)
    ]


def by_task(family: str) -> Json:
    buckets = f"sum by (name, le) (rate({family}_bucket{{$traffic}}[$__rate_interval]))"
    return query(f"histogram_quantile(0.95, {buckets})", "{{name}}")


def failure_share(by: str) -> str:
    failed = risen("celery_task_failed_total{$traffic}", by)
    done = f"sum by ({by}) (increase(celery_task_succeeded_total{{$traffic}}[$__range]))"
    return f"{failed} / ({failed} + {done})"


def traffic() -> layout.Row:
    throughput = panels.series(
        "Throughput",
        "Tasks a second, by what they came to. Received above the others for long: "
        "prefetched tasks wait in the workers.",
        [
            query(rate("received", "job"), "received"),
            *(query(rate(each, "job"), each) for each in OUTCOMES),
        ],
        "ops",
        overrides=[fields.colored(name, color) for name, color in COLORS.items()],
    )
    busiest = panels.series(
        "Throughput by task type",
        "Tasks a second that succeeded.",
        [query(rate("succeeded", "name"), "{{name}}")],
        "ops",
    )
    return layout.row(9, throughput, busiest)


def failures_by_exception() -> Json:
    return panels.series(
        "Failures, by task type and exception",
        "A second; time limits and lost children included.",
        [
            query(
                "sum by (name, exception) "
                "(rate(celery_task_failed_total{$traffic}[$__rate_interval])) > 0",
                "{{name}}: {{exception}}",
            )
        ],
        "ops",
    )


def outcomes() -> Json:
    return panels.table(
        "Outcomes",
        "In this time range.",
        [
            ("name", "Task"),
            ("Value #A", "Failed"),
            ("Value #B", "Succeeded"),
            ("Value #C", "Failures"),
            ("Value #D", "Retries"),
        ],
        [
            failure_share("name"),
            "sum by (name) (increase(celery_task_succeeded_total{$traffic}[$__range]))",
            risen("celery_task_failed_total{$traffic}", "name"),
            risen("celery_task_retried_total{$traffic}", "name"),
        ],
        sort="Failed",
        overrides=[
            fields.override(
                "Failed",
                unit="percentunit",
                custom__cellOptions=fields.COLORED_CELL,
                thresholds=fields.FAILED,
            ),
            fields.override("^(Succeeded|Failures|Retries)$", regex=True, unit="short", decimals=0),
        ],
    )


def durations() -> layout.Row:
    runtime = panels.series(
        "Runtime of all",
        "Percentiles of runs that succeeded.",
        quantiles("celery_task_runtime"),
        "s",
        calcs=("lastNotNull",),
    )
    runtime_by_task = panels.series(
        "Runtime by task type",
        "The 95th percentile of each.",
        [by_task("celery_task_runtime")],
        "s",
        calcs=("lastNotNull",),
    )
    wait = panels.series(
        "Wait in the queue",
        "From when a task was sent, or due, until it started, where messages tell when they were "
        "sent. The 95th percentile of each task type.",
        [by_task("celery_task_queue_wait_time")],
        "s",
        calcs=("lastNotNull",),
    )
    return layout.row(9, runtime, runtime_by_task, wait)


def length() -> Json:
    return panels.series(
        "Queue length",
        "Messages that wait, of all priorities. "
        "What rises for hours needs more workers, or faster tasks.",
        [query("sum by (queue_name) (celery_queue_length{$queue})", "{{queue_name}}")],
        "short",
    )


def age() -> Json:
    return panels.series(
        "Age of the oldest waiting task",
        "What the one at the head of the queue has waited; "
        "at least, where its message tells no time.",
        [
            query(
                "max by (queue_name) (celery_queue_oldest_task_age_seconds{$queue})",
                "{{queue_name}}",
            )
        ],
        "s",
    )


def consumers() -> Json:
    return panels.table(
        "Who consumes",
        "Workers and pool processes that consume each queue. "
        "A queue with messages and no worker waits for ever.",
        [
            ("queue_name", "Queue"),
            ("Value #A", "Waiting"),
            ("Value #B", "Workers"),
            ("Value #C", "Processes"),
        ],
        [
            "sum by (queue_name) (celery_queue_length{$queue})",
            "sum by (queue_name) (celery_active_worker_count{$queue})",
            "sum by (queue_name) (celery_active_process_count{$queue})",
        ],
        sort="Waiting",
        overrides=[
            fields.override("Waiting", unit="short"),
            fields.override("^(Workers|Processes)$", regex=True, decimals=0),
        ],
    )


def workers() -> layout.Row:
    busy = panels.series(
        "Running and prefetched",
        "Tasks that each worker runs, and those that it has taken from the broker and not started.",
        [
            query("sum by (worker) (celery_worker_tasks_active{$worker})", "running, {{worker}}"),
            query(
                "sum by (worker) (celery_worker_prefetched_tasks{$worker})",
                "prefetched, {{worker}}",
            ),
        ],
        "none",
        overrides=[fields.dashed("^prefetched")],
    )
    oldest = panels.series(
        "Longest running",
        "For how long the oldest task of each type that runs now has been running. "
        "What only rises hangs.",
        [query("max by (name) (celery_task_running_oldest_seconds{$task})", "{{name}}")],
        "s",
    )
    return layout.row(8, busy, oldest)


def of_what_is_done() -> list[Json]:
    return [
        panels.stat(
            "Tasks a second",
            "That succeeded or failed.",
            f"sum({rate('succeeded', 'job')} + {rate('failed', 'job')})",
            "ops",
            spark=True,
        ),
        panels.stat(
            "Failed",
            "Share of what was done in this time range.",
            f"max({failure_share('job')})",
            "percentunit",
            thresholds=fields.FAILED,
        ),
    ]


def of_what_waits() -> list[Json]:
    return [
        panels.stat(
            "Waiting",
            "Messages in all queues.",
            "sum(celery_queue_length{$queue})",
            "short",
            spark=True,
        ),
        panels.stat(
            "Oldest that waits",
            "For how long the oldest message of all queues has waited.",
            "max(celery_queue_oldest_task_age_seconds{$queue}) or vector(0)",
            "s",
        ),
    ]


def of_pools() -> list[Json]:
    return [
        panels.stat(
            "Pool in use",
            "Tasks that run, of those that could.",
            "sum(celery_worker_tasks_active{$worker}) / sum(celery_worker_concurrency{$worker})",
            "percentunit",
            thresholds=steps((None, GREEN), (0.9, ORANGE)),
        ),
        panels.stat(
            "Retries a second",
            "Runs that asked for another one.",
            f"sum({rate('retried', 'job')})",
            "ops",
        ),
    ]


def content() -> list[layout.Row]:
    return [
        layout.figures(*of_what_is_done(), *of_what_waits(), *of_pools()),
        traffic(),
        layout.row(9, length(), age(), consumers()),
        durations(),
        layout.row(9, failures_by_exception(), outcomes()),
        workers(),
    ]


def build() -> Json:
    return layout.dashboard(
        UID,
        "Celery memory / Tasks and queues",
        "Throughput, failures, runtime and waiting, by task type and queue.",
        [layout.WORKER, layout.TASK, QUEUE],
        content(),
    )
