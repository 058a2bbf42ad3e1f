"""Prometheus and Alertmanager as the tests run them, and a webhook that keeps what it is told."""

from __future__ import annotations

import json
import threading
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.integration.programs import LOOPBACK, Program, free_port, need
from tests.integration.waiting import PATIENCE, wait_for


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        return json.load(response)


def is_ready(port: int) -> bool:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/-/ready", timeout=PATIENCE) as response:
        return bool(response.status == 200)


class Prometheus(Program):
    """Scrapes one exporter; with ``rules``, evaluates them as often, and tells ``alertmanager`` (a
    port)."""

    def __init__(
        self,
        folder: Path,
        exporter_port: int,
        *,
        job: str,
        namespace: str = "shop",
        scrape_seconds: int = 1,
        rules: str | None = None,
        alertmanager: int | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        interval = f"{scrape_seconds}s"
        target = {"targets": [f"{LOOPBACK}:{exporter_port}"], "labels": {"namespace": namespace}}
        settings: dict[str, Any] = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "scrape_configs": [{"job_name": job, "static_configs": [target]}],
        }
        if rules:
            settings["rule_files"] = [rules]
        if alertmanager:
            settings["alerting"] = {
                "alertmanagers": [{"static_configs": [{"targets": [f"{LOOPBACK}:{alertmanager}"]}]}]
            }
        config = folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [
            need("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
        ]
        super().__init__(
            [*command, f"--web.listen-address={LOOPBACK}:{self.port}"], folder / "prometheus.log"
        )

    def start(self) -> None:
        super().start()
        self.wait_until_up(lambda: is_ready(self.port), "Prometheus")
        wait_for(lambda: self.query("up == 1"), "the first scrape")

    def ask(self, path: str, **parameters: Any) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return get(url)["data"]
        except urllib.request.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Raises ``AssertionError`` for what Prometheus does not understand."""
        result: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return result

    def values(self, expression: str, begin: float, end: float) -> dict[int, float]:
        """By whole second; of one series."""
        found = self.ask("query_range", query=expression, start=int(begin), end=int(end), step=1)[
            "result"
        ]
        return {int(at): float(value) for series in found for at, value in series["values"]}


class Alertmanager(Program):
    """With the given configuration."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.port = free_port()
        config = folder / "alertmanager.yaml"
        config.write_text(yaml.safe_dump(settings))
        command = [need("prometheus-alertmanager", "alertmanager"), f"--config.file={config}"]
        command += [
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={LOOPBACK}:{self.port}",
        ]
        super().__init__([*command, "--cluster.listen-address="], folder / "alertmanager.log")

    def start(self) -> None:
        super().start()
        self.wait_until_up(lambda: is_ready(self.port), "Alertmanager")


class Webhook:
    """Keeps the notifications that it gets, with the path that they came to."""

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the base class names it
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append((self.path, json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ensure_stopped(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
