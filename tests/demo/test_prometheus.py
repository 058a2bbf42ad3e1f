"""How the demo sets up Prometheus, and asks it."""

from __future__ import annotations

import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from celery_memory_exporter.demo import prometheus
from tests.integration.conftest import need


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


class Answers(BaseHTTPRequestHandler):
    """As Prometheus' API answers."""

    ALERTS = (
        ("CeleryTaskLeak", "firing", {"worker": "demo@localhost", "name": "shop.leak"}),
        ("CeleryWorkerDown", "pending", {"worker": "demo@localhost"}),
        ("CeleryTaskLeak", "firing", {"worker": "celery@elsewhere", "name": "shop.leak"}),
    )

    def do_GET(self) -> None:
        assert self.path == "/api/v1/alerts"
        alerts = [
            {"labels": {"alertname": name, **labels}, "state": state}
            for name, state, labels in self.ALERTS
        ]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": {"alerts": alerts}}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Not on standard error."""


def test_only_alerts_of_the_demos_own_worker_are_told() -> None:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        asked = prometheus.Prometheus(f"http://127.0.0.1:{server.server_port}")
        found = asked.alerts("demo@localhost")
        server.shutdown()
        thread.join()
    assert found == [
        ("CeleryTaskLeak", "firing", "shop.leak"),
        ("CeleryWorkerDown", "pending", ""),
    ]


def test_without_prometheus_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(prometheus.PrometheusError, match="apt install prometheus"),
        prometheus.running(tmp_path, "127.0.0.1:1", None),
    ):
        pass
