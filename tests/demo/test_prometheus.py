"""What the demo shows, and how it sets up Prometheus."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from celery_memory_exporter.demo import prometheus
from tests.integration.programs import need


def test_the_rules_are_those_of_the_project() -> None:
    rules = next(path for path in prometheus.RULES if path.is_dir())
    assert "celery-memory.alerts.yaml" in {path.name for path in rules.iterdir()}


@pytest.mark.integration
def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    rules = next(path for path in prometheus.RULES if path.is_dir())
    config = tmp_path / "prometheus.yaml"
    config.write_text(
        yaml.safe_dump(prometheus.configuration("127.0.0.1:9808", rules, "127.0.0.1:9093"))
    )
    done = subprocess.run(
        [need("promtool"), "check", "config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rule files found" in done.stdout


def test_an_alertmanager_is_told_only_where_one_is_given() -> None:
    assert "alerting" not in prometheus.configuration("127.0.0.1:1", Path("/rules"), None)


def test_a_prometheus_that_cannot_be_asked_has_no_alerts() -> None:
    assert prometheus.Prometheus("http://127.0.0.1:1").alerts("demo@localhost") == []
