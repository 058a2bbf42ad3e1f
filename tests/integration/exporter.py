"""``celery-memory-exporter serve`` as a process, and what it shows."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.programs import LOOPBACK, Program, answers, free_port
from tests.integration.waiting import PATIENCE, wait_for

#: By name and labels.
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Exporter(Program):
    def __init__(
        self, log: Path, broker_url: str | None, *options: str, port: int | None = None
    ) -> None:
        self.port = port or free_port()
        command = [sys.executable, "-m", "celery_memory_exporter.cli", "serve"]
        command += ["--listen-address", f"{LOOPBACK}:{self.port}", *options]
        environment = {"CELERY_MEMORY_BROKER_URL": broker_url} if broker_url else {}
        super().__init__(command, log, **environment)

    def start(self) -> None:
        super().start()
        self.wait_until_up(lambda: answers(self.port), f"the exporter at port {self.port}")

    def text_of(self, path: str = "/metrics") -> str:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}{path}", None, PATIENCE) as page:
            text: str = page.read().decode()
            return text

    def ready(self) -> bool:
        return self.readiness() == ""

    def readiness(self) -> str:
        """What is not ready yet, as it says itself; empty when all is."""
        try:
            self.text_of("/-/ready")
        except urllib.request.HTTPError as error:
            return error.read().decode() or str(error)
        return ""

    def wait_until_ready(self) -> None:
        wait_for(self.readiness, "the exporter to be ready", lambda missing: not missing)

    def samples(self, *names: str) -> Samples:
        """Of all families, or of those that have samples of these names."""
        asked = f"?{urlencode([('name[]', name) for name in names])}" if names else ""
        families = text_string_to_metric_families(self.text_of(f"/metrics{asked}"))
        return {
            (each.name, frozenset(each.labels.items())): each.value
            for family in families
            for each in family.samples
        }

    def value(self, name: str, /, **labels: str) -> float | None:
        """The sum of the samples with these labels; ``None`` when there is none."""
        values = [value for _, value in self._matching(name, labels)]
        return sum(values) if values else None

    def by_label(self, name: str, label: str, /, **labels: str) -> dict[str, float]:
        return {has[label]: value for has, value in self._matching(name, labels)}

    def _matching(
        self, name: str, labels: dict[str, str]
    ) -> Iterator[tuple[dict[str, str], float]]:
        for (each, has), value in self.samples(name).items():
            if each == name and labels.items() <= has:
                yield dict(has), value
