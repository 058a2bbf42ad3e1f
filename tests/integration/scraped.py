"""An exporter that a real Prometheus scrapes, and workers of both kinds: import the fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.exporter import Exporter
from tests.integration.figures import wait_for_value
from tests.integration.observers import Prometheus
from tests.integration.stage import Stage
from tests.integration.worker import Worker

SCRAPE_SECONDS = 1
JOB = "celery-exporter"
NAMESPACE = "shop"


@pytest.fixture
def exporter(stage: Stage) -> Exporter:
    """Without the process table, which shows other tests' workers, too."""
    return stage.configured(
        broker={"url": stage.broker.url},
        queues={"interval_seconds": 1, "inspect_interval_seconds": 5},
        processes={"enabled": False},
    )


@pytest.fixture
def prometheus(stage: Stage, exporter: Exporter) -> Iterator[Prometheus]:
    prometheus = Prometheus(
        stage.folder, exporter.port, job=JOB, namespace=NAMESPACE, scrape_seconds=SCRAPE_SECONDS
    )
    try:
        prometheus.start()
        yield prometheus
    finally:
        prometheus.ensure_stopped()


def workers_of_both_kinds(stage: Stage, exporter: Exporter) -> tuple[Worker, Worker]:
    """With the agent, and with events."""
    workers = stage.worker("-c", "2"), stage.worker("-c", "2", "-E", agent=False)
    for worker in workers:
        # From then on it is known which queue is whose.
        wait_for_value(exporter, 1, "celery_active_worker_count", queue_name=worker.queue)
    return workers
