"""The page for those who come from another exporter names metrics that are here, and all of
theirs."""

from __future__ import annotations

import dataclasses
import functools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from celery_memory_exporter.agent.settings import PREFIX, Settings
from celery_memory_exporter.config.loading import ENVIRONMENT
from celery_memory_exporter.config.settings import Config
from celery_memory_exporter.metrics.catalogue import BY_NAME
from tests.conftest import IN_CI

#: Settings of Prometheus.
PROMETHEUS = ("metric_relabel_configs", "labels")
PAGE = (Path(__file__).parent.parent / "docs" / "migrating.md").read_text()
#: By whose they are: their own lists of metrics.
THEIRS = {
    "celery-exporter": """
        celery_task_sent_total celery_task_received_total celery_task_started_total
        celery_task_succeeded_total
        celery_task_failed_total celery_task_rejected_total celery_task_revoked_total
        celery_task_retried_total celery_task_runtime
        celery_task_queue_wait_time celery_worker_up celery_worker_tasks_active celery_queue_length
        celery_active_consumer_count
        celery_active_worker_count celery_active_process_count
    """,
    "flower": """
        flower_events_total flower_task_runtime_seconds flower_task_prefetch_time_seconds
        flower_worker_prefetched_tasks
        flower_worker_online flower_worker_number_of_currently_executing_tasks
    """,
    "ovalmoney-and-grafana": """
        celery_tasks_total celery_tasks_runtime_seconds celery_tasks_latency_seconds celery_workers
        celery_queue_length
    """,
    "celerymon": """
        celerymon_redis_last_updated_timestamp_seconds celerymon_redis_queue_item_count
        celerymon_inspect_last_updated_timestamp_seconds
        celerymon_inspect_oldest_started_task_timestamp_seconds
        celerymon_inspect_worker_held_task_count celerymon_events_last_received_timestamp_seconds
        celerymon_events_count_total
        celerymon_events_task_runtime_seconds celerymon_events_online_worker_count
        celerymon_events_queue_wait_seconds
        celerymon_events_oldest_queued_task_age_seconds celerymon_events_in_flight_evicted_total
        celerymon_events_in_flight_cache_size
    """,
}

#: Those of others, which are named below the tables.
OTHERS = """
    celery_tasks celery_tasks_by_name celery_task_latency celery_queue_waiting_seconds
    celery_tasks_queue_length
    celery_tasks_running celery_tasks_duration_seconds
"""
#: celery-exporter's.
OPTIONS = """
    --broker-url --broker-transport-option --broker-ssl-option --accept-content --retry-interval
    --host --port --buckets
    --queue-wait-buckets --log-level --worker-timeout --purge-offline-worker-metrics
    --generic-hostname-task-sent-metric
    --generic-hostname-worker-task-metric --queues --metric-prefix --default-queue-name
    --static-label
"""


def tables() -> dict[str, list[list[str]]]:
    """Rows by section, as they are linked to: their cells."""
    sections = {}
    for section in PAGE.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        rows = [row.split(" | ") for row in re.findall(r"^\| (.+) \|$", text, re.MULTILINE)]
        sections[title.lower().replace(" ", "-")] = [
            row for row in rows if not row[0].startswith("their")
        ]
    return sections


def expressions(whose: str) -> list[str]:
    """What their metrics are here, as one would ask Prometheus."""
    return [
        each for *_, ours in tables()[whose] for each in re.findall(r"`([^`]*celery_[^`]*)`", ours)
    ]


@pytest.mark.parametrize("whose", THEIRS)
def test_each_metric_of_theirs_has_its_row(whose: str) -> None:
    rows = tables()[whose]
    assert [re.findall(r"`(\w+)`", row[0]) for row in rows] == [
        [name] for name in THEIRS[whose].split()
    ]
    assert all(len(row) == 3 and all(row) for row in rows)


def test_the_others_are_named() -> None:
    for name in OTHERS.split():
        assert f"`{name}`" in PAGE, name


@pytest.mark.parametrize("whose", THEIRS)
def test_what_they_become_is_here(whose: str) -> None:
    for name in re.findall(r"\bcelery_\w+", " ".join(expressions(whose))):
        family = BY_NAME.get(name) or BY_NAME[re.sub("_(bucket|sum|count)$", "", name)]
        assert family.name == name or family.kind in ("histogram", "summary"), name
        assert family.kind == "histogram" or not name.endswith("_bucket"), name


@pytest.mark.parametrize("whose", THEIRS)
def test_labels_of_expressions_are_the_metrics_own(whose: str) -> None:
    for expression in expressions(whose):
        for labels, name in re.findall(r"by \(([\w, ]+)\) \((?:\w+\()?(celery_\w+)", expression):
            family = BY_NAME.get(name) or BY_NAME[re.sub("_(bucket|sum|count)$", "", name)]
            assert {*labels.split(", ")} <= {
                *family.labels,
                *(["le"] if name.endswith("_bucket") else []),
            }, expression


def test_every_option_of_celery_exporter_has_its_row() -> None:
    named = {
        option
        for theirs, *_ in tables()["how-to-swap"]
        for option in re.findall(r"`(--[\w-]+)`", theirs)
    }
    assert named >= {*OPTIONS.split()}


def test_the_settings_are_here() -> None:
    config, agent = (
        Config(),
        {f"{PREFIX}{field.name.upper()}" for field in dataclasses.fields(Settings)},
    )
    ours = [
        setting
        for _, cell in tables()["how-to-swap"]
        for setting in re.findall(r"`([\w.-]+)(?:: \w+)?`", cell)
    ]
    for name in ours:
        if name.startswith("CELERY_MEMORY_"):
            assert name in agent or name in ENVIRONMENT, name
        elif not name.startswith("-") and name not in PROMETHEUS:
            assert (
                functools.reduce(getattr, name.split("."), config) is not None
                or name == "broker.url"
            ), name
    assert len(ours) > 20


def test_every_expression_is_valid(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not IN_CI, "CI has to have promtool (Debian's prometheus)"
        pytest.skip("promtool is not installed (Debian's prometheus)")
    asked = [expression for whose in THEIRS for expression in expressions(whose)]
    rules = [
        {"record": f"r{number}", "expr": expression} for number, expression in enumerate(asked)
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    checked = subprocess.run(
        [promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(asked)} rules found" in checked.stdout
