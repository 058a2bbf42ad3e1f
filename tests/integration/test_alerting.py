"""The demo's leak on its way to whom it concerns: exporter, Prometheus with the rules, Alertmanager
with the example's routes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.observers import Alertmanager, Webhook
from tests.integration.programs import ROOT, need
from tests.integration.waiting import PATIENCE, contains, wait_for

pytestmark = pytest.mark.integration
#: What the issue allows from the start of the demo to the alert; the rule's own `for` is a part of
#: it.
WITHIN_SECONDS = 300


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    webhook.start()
    yield webhook
    webhook.ensure_stopped()


def sent_to(webhook: Webhook) -> dict[str, Any]:
    """The example's configuration, with the receivers' addresses replaced by paths of the webhook;
    groups wait a second."""
    settings: dict[str, Any] = yaml.safe_load(
        (ROOT / "grafana" / "alertmanager.example.yaml").read_text()
    )
    settings["receivers"] = [
        {
            "name": each["name"],
            **(
                {"webhook_configs": [{"url": f"{webhook.url}/{each['name']}"}]}
                if len(each) > 1
                else {}
            ),
        }
        for each in settings["receivers"]
    ]
    settings["route"]["group_wait"] = "1s"
    return settings


@pytest.fixture
def alertmanager(tmp_path: Path, webhook: Webhook) -> Iterator[Alertmanager]:
    alertmanager = Alertmanager(tmp_path, sent_to(webhook))
    try:
        alertmanager.start()
        yield alertmanager
    finally:
        alertmanager.ensure_stopped()


@contextlib.contextmanager
def demo(log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        command = [sys.executable, "-m", "celery_memory_exporter.cli", "demo", *options]
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)


def notifications(webhook: Webhook, alertname: str) -> list[tuple[str, dict[str, Any]]]:
    """Receiver and alert."""
    return [
        (path.removeprefix("/"), alert)
        for path, body in webhook.received
        for alert in body["alerts"]
        if alert["labels"]["alertname"] == alertname and alert["status"] == "firing"
    ]


def test_the_leak_of_the_demo_reaches_its_receiver(
    tmp_path: Path, webhook: Webhook, alertmanager: Alertmanager
) -> None:
    need("prometheus")
    log, begun = tmp_path / "demo.log", time.monotonic()
    with demo(log, "--alertmanager", f"127.0.0.1:{alertmanager.port}"):
        told = wait_for(lambda: notifications(webhook, "CeleryTaskLeak"), "the alert to arrive")
        assert time.monotonic() - begun < WITHIN_SECONDS
        wait_for(
            log.read_text,
            "the demo to show it",
            contains("CeleryTaskLeak firing (process_and_cache_data)"),
        )
    assert {alert["labels"]["name"] for _, alert in told} == {
        "celery_memory_exporter.demo.shop.process_and_cache_data"
    }
    receiver, alert = told[0]
    assert receiver == sent_to(webhook)["route"]["receiver"]
    assert "celery_memory_exporter.demo.shop._my_app_cache" in alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"].endswith("/CeleryTaskLeak.md")
    assert "/alerts" in log.read_text(), "its address is shown"


def test_without_prometheus_the_demo_says_what_to_install(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "celery_memory_exporter.cli", "demo", "--prometheus"]
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no prometheus in PATH; install it" in done.stderr
