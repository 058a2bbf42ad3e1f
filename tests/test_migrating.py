"""The page for those who come from another exporter names metrics that are here, and all of theirs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from celery_memory_exporter.catalogue import BY_NAME
from celery_memory_exporter.config import Config, load
from tests.conftest import IN_CI

PAGE = (Path(__file__).parent.parent / "docs" / "migrating.md").read_text()
#: By whose they are: their own lists of metrics.
THEIRS = {
    "celery-exporter": """
        celery_task_sent_total celery_task_received_total celery_task_started_total celery_task_succeeded_total
        celery_task_failed_total celery_task_rejected_total celery_task_revoked_total celery_task_retried_total celery_task_runtime
        celery_task_queue_wait_time celery_worker_up celery_worker_tasks_active celery_queue_length celery_active_consumer_count
        celery_active_worker_count celery_active_process_count
    """,
    "flower": """
        flower_events_total flower_task_runtime_seconds flower_task_prefetch_time_seconds flower_worker_prefetched_tasks
        flower_worker_online flower_worker_number_of_currently_executing_tasks
    """,
    "ovalmoney-and-grafana": """
        celery_tasks_total celery_tasks_runtime_seconds celery_tasks_latency_seconds celery_workers celery_queue_length
    """,
    "celerymon": """
        celerymon_redis_last_updated_timestamp_seconds celerymon_redis_queue_item_count
        celerymon_inspect_last_updated_timestamp_seconds celerymon_inspect_oldest_started_task_timestamp_seconds
        celerymon_inspect_worker_held_task_count celerymon_events_last_received_timestamp_seconds celerymon_events_count_total
        celerymon_events_task_runtime_seconds celerymon_events_online_worker_count celerymon_events_queue_wait_seconds
        celerymon_events_oldest_queued_task_age_seconds celerymon_events_in_flight_evicted_total
        celerymon_events_in_flight_cache_size
    """,
}


def tables() -> dict[str, list[tuple[str, str]]]:
    """Rows by section, as they are linked to."""
    sections = {}
    for section in PAGE.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        rows = re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE)
        sections[title.lower().replace(" ", "-")] = [row for row in rows if row[0] != "theirs"]
    return sections


@pytest.mark.parametrize("whose", THEIRS)
def test_each_metric_of_theirs_has_its_row(whose: str) -> None:
    assert [re.findall(r"`(\w+)`", theirs)[0] for theirs, _ in tables()[whose]] == THEIRS[whose].split()


@pytest.mark.parametrize("whose", THEIRS)
def test_what_they_become_is_here(whose: str) -> None:
    for _, ours in tables()[whose]:
        for name in re.findall(r"\bcelery_\w+", ours):
            assert name in BY_NAME, name


def test_the_settings_are_here() -> None:
    settings = {"broker", "listen", "log", "queues", "labels", "buckets", "worker_groups"}
    for _, ours in tables()["how-to-swap"]:
        for path in re.findall(r"`([a-z_]+\.[a-z_]+)\b", ours):
            section, _, key = path.partition(".")
            assert section in settings
            assert hasattr(getattr(Config(), section), key), path
    assert load(None, {}).heartbeat_timeout_seconds
    assert load(None, {}).expire_after_seconds


def test_every_expression_is_valid(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not IN_CI, "CI has to have promtool (Debian's prometheus)"
        pytest.skip("promtool is not installed (Debian's prometheus)")
    expressions = [
        expression
        for whose in THEIRS
        for _, ours in tables()[whose]
        for expression in re.findall(r"`([^`]*celery_[^`]*)`", ours)
        if "…" not in expression
    ]
    rules = [{"record": f"r{number}", "expr": expression} for number, expression in enumerate(expressions)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    checked = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
