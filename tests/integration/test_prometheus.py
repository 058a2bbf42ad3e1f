"""What dashboards and alerts of danihodovic/celery-exporter ask has data on a real Prometheus that
scrapes this exporter."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from celery import Celery

from tests.integration.client import LONG_AGO, Load
from tests.integration.exporter import Exporter
from tests.integration.observers import Prometheus
from tests.integration.scraped import (
    JOB,
    NAMESPACE,
    SCRAPE_SECONDS,
    exporter,
    prometheus,
    workers_of_both_kinds,
)
from tests.integration.stage import Stage
from tests.integration.waiting import wait_for
from tests.integration.worker import Worker, name_of

__all__ = ["exporter", "prometheus"]

pytestmark = pytest.mark.integration

OUTCOMES = ("succeeded", "failed", "sent", "received", "rejected", "retried", "revoked")
OF_JOB = 'job="$job", queue_name=~"$queue_name"'
OF_TASK = 'job="$job", name=~"$task", queue_name=~"$queue_name"'


def count(outcome: str, which: str, over: str, by: str = "") -> str:
    return f"sum (round(increase(celery_task_{outcome}_total{{{which}}}[{over}]))) {by}"


def success_rate(which: str, over: str, by: str = "") -> str:
    succeeded, failed = (count(each, which, over, by) for each in ("succeeded", "failed"))
    return f"{succeeded} / ({succeeded} + {failed})"


def mean_runtime(by: str = "") -> str:
    total, runs = (
        f"sum (rate(celery_task_runtime_{each}{{{OF_JOB}}}[1w])) {by}" for each in ("sum", "count")
    )
    return f"{total} / {runs} > 0"


def quantile(share: str, which: str, by: str) -> str:
    rates = f"irate(celery_task_runtime_bucket{{{which}}}[$__rate_interval]) > 0"
    return f"histogram_quantile({share}, sum({rates}) by ({by}))"


#: Each expression of the two dashboards, Grafana 17509 and 17508, in their panels' order.
OVERVIEW = [
    'count(celery_worker_up{job="$job",} == 1)',
    'sum(celery_worker_tasks_active{job="$job",})',
    count("received", OF_JOB, "1w"),
    success_rate(OF_JOB, "1w"),
    mean_runtime(),
    f"round(sum (increase(celery_task_failed_total{{{OF_JOB}}}[1w]) > 0) by (job, name))",
    f"round(sum (increase(celery_task_failed_total{{{OF_JOB}}}[1w])) by (job, exception) > 0)",
    mean_runtime("by(name)"),
    f"sum (celery_queue_length{{{OF_JOB}}}) by (job, queue_name)",
    f"{success_rate(OF_JOB, '$__range', 'by (job)')} > -1",
    *(f"{count(each, OF_JOB, '$__range', 'by (job)')} > 0" for each in OUTCOMES),
    *(count(each, OF_JOB, "$__rate_interval") for each in OUTCOMES),
    *(quantile(share, OF_JOB, "job, le") for share in ("0.50", "0.95", "0.99")),
]
BY_TASK = [
    f"{success_rate(OF_TASK, '$__range', 'by (name)')} > -1",
    *(f"{count(each, OF_TASK, '$__range', 'by (name)')} > 0" for each in OUTCOMES),
    f"round(sum (increase(celery_task_failed_total{{{OF_TASK}}}[$__range])) by (name, exception) > "
    "0)",
    *(f"{count(each, OF_TASK, '$__rate_interval', 'by (name)')} > 0" for each in OUTCOMES),
    f"{count('failed', OF_TASK, '$__rate_interval', 'by (name, exception)')} > 0",
    *(quantile(share, OF_TASK, "name, job, le") for share in ("0.50", "0.95", "0.99")),
]
#: What the dashboards' variables choose from: series, and the label.
VARIABLES = [
    ("celery_worker_up{}", "namespace"),
    ('celery_worker_up{namespace="$namespace"}', "job"),
    ('celery_task_received_total{namespace="$namespace", job="$job", name!~"None"}', "queue_name"),
    (
        'celery_task_received_total{namespace="$namespace", job="$job", queue_name=~"$queue_name", '
        'name!~"None"}',
        "name",
    ),
]
OF_ANY = 'job=~".*celery.*", queue_name!~"None"'


def within_ten_minutes(outcome: str) -> str:
    increase = f'increase(celery_task_{outcome}_total{{{OF_ANY}, name!~"None"}}[10m])'
    return f"sum({increase}) by (job, namespace, queue_name, name)"


#: What each alert looks at, and when it fires.
ALERTS = {
    "CeleryTaskHighFailRate": (
        f"{within_ten_minutes('failed')} / ({within_ten_minutes('failed')} + "
        f"{within_ten_minutes('succeeded')}) * 100",
        "> 5",
    ),
    "CeleryHighQueueLength": (
        f"sum(celery_queue_length{{{OF_ANY}}}) by (job, namespace, queue_name)",
        "> 100",
    ),
    "CeleryWorkerDown": ('celery_worker_up{job=~".*celery.*"}', "== 0"),
}


def substituted(expression: str, worker: Worker, tasks: list[str]) -> str:
    """As Grafana does it; several tasks are chosen at once."""
    variables = {
        "$__rate_interval": f"{4 * SCRAPE_SECONDS}s",
        "$__range": "2d",
        "$namespace": NAMESPACE,
        "$job": JOB,
        "$queue_name": worker.queue,
        "$task": f"({'|'.join(re.escape(each).replace(chr(92), chr(92) * 2) for each in tasks)})",
    }
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def test_dashboards_and_alerts_of_the_best_known_exporter_have_data(
    stage: Stage, exporter: Exporter, prometheus: Prometheus
) -> None:
    workers = workers_of_both_kinds(stage, exporter)
    names = [name_of(each) for each in ("noop", "fail", "retry_once", "reject", "too_late")]

    def send(app: Celery, producer: Any) -> None:
        for worker, name in itertools.product(workers, names):
            app.send_task(
                name,
                queue=worker.queue,
                producer=producer,
                expires=LONG_AGO if "too_late" in name else None,
            )

    with Load(stage, send, per_second=5):
        for worker in workers:
            for expression in [*OVERVIEW, *BY_TASK, *(vector for vector, _ in ALERTS.values())]:
                asked = substituted(expression, worker, names)
                wait_for(lambda asked=asked: prometheus.query(asked), f"data of {asked}")
            for series, label in VARIABLES:
                asked = substituted(series, worker, names)
                assert prometheus.ask(f"label/{label}/values", **{"match[]": asked}), (
                    series,
                    label,
                )
        fires = {
            alert: prometheus.query(f"{vector} {when}") for alert, (vector, when) in ALERTS.items()
        }
    high = {
        (each["metric"]["queue_name"], each["metric"]["name"])
        for each in fires.pop("CeleryTaskHighFailRate")
    }
    assert high >= {(worker.queue, name_of("fail")) for worker in workers}
    assert not high & {(worker.queue, name_of("noop")) for worker in workers}
    assert fires == {"CeleryHighQueueLength": [], "CeleryWorkerDown": []}
