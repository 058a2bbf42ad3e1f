"""``demo --prometheus``: a Prometheus that scrapes the demo and evaluates the project's rules, as
it does in production."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from celery_memory_exporter.demo import program

PACKAGE = Path(__file__).parent.parent
#: In an installed package, and in a checkout.
RULES = (PACKAGE / "demo" / "rules", PACKAGE.parent.parent / "grafana" / "rules")
JOB = "celery-memory-exporter"
#: As often as the demo's worker reports, so that a minute shows something.
SCRAPE_INTERVAL = "2s"
START_SECONDS = 20.0
ASK_SECONDS = 2.0


class PrometheusError(Exception):
    """Prometheus cannot run here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that answers at ``url``."""

    url: str

    def alerts(self, worker: str) -> list[tuple[str, str, str]]:
        """Name, state (pending, firing) and task type of each alert of this worker; empty while it
        cannot be asked.

        The process table shows other workers of this machine as well; they are not what the demo is
        about.
        """
        try:
            with _ask(f"{self.url}/api/v1/alerts") as response:
                found = json.load(response)["data"]["alerts"]
        except (OSError, ValueError):
            return []
        told = [(each["labels"], each["state"]) for each in found]
        return sorted(
            (labels["alertname"], state, labels.get("name", ""))
            for labels, state in told
            if labels.get("worker") == worker
        )


def configuration(exporter: str, rules: Path, alertmanager: str | None) -> dict[str, Any]:
    """Prometheus' configuration; addresses are ``host:port``."""
    settings: dict[str, Any] = {
        "global": {
            "scrape_interval": SCRAPE_INTERVAL,
            "scrape_timeout": SCRAPE_INTERVAL,
            "evaluation_interval": SCRAPE_INTERVAL,
        },
        "rule_files": [str(rules / "*.yaml")],
        "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": [exporter]}]}],
    }
    if alertmanager:
        settings["alerting"] = {
            "alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]
        }
    return settings


@contextlib.contextmanager
def running(folder: Path, exporter: str, alertmanager: str | None) -> Iterator[Prometheus]:
    """Ended at the end. Raises ``PrometheusError`` where it is not installed or does not start."""
    executable = shutil.which("prometheus")
    if executable is None:
        raise PrometheusError(
            "there is no prometheus in PATH; install it (Debian: apt install prometheus), or leave "
            "out --prometheus"
        )
    rules = next(path for path in RULES if path.is_dir())
    config, log = folder / "prometheus.yaml", folder / "prometheus.log"
    config.write_text(yaml.safe_dump(configuration(exporter, rules, alertmanager)))
    address = free_address()
    command = [
        executable,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={address}",
    ]
    with program.running(command, log) as process:
        wait_until_ready(process, f"http://{address}", log)
        yield Prometheus(f"http://{address}")


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def _ask(url: str) -> http.client.HTTPResponse:
    answer: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310  # our own server
        url, timeout=ASK_SECONDS
    )
    return answer


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), _ask(f"{url}/-/ready"):
            return
        time.sleep(0.1)
    last = log.read_text(errors="replace").splitlines()[-5:]
    raise PrometheusError("\n".join(["Prometheus did not start. The end of its log:", *last]))
