"""``celery worker`` on the tests' application."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.integration.programs import Program
from tests.integration.servers import Server

#: Seconds between two reports of an agent.
INTERVAL = 1.0


def name_of(task: str) -> str:
    return f"tests.integration.tasks.{task}"


class Worker(Program):
    """With the agent unless it says otherwise."""

    def __init__(
        self,
        log: Path,
        broker: Server,
        name: str,
        *options: str,
        agent: bool = True,
        application: str | None = None,
        **environment: str,
    ) -> None:
        self.nodename = f"{name}@localhost"
        self.queue = name
        application = application or (
            "tests.integration.configured" if broker.settings else "tests.integration.tasks"
        )
        command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", application, "worker"]
        command += ["-n", self.nodename, "-Q", self.queue, "-l", "INFO", *options]
        command += ["-I", "celery_memory_exporter.autoload"] if agent else []
        settings = {
            "TEST_BROKER_URL": broker.url,
            "TEST_BROKER_SETTINGS": json.dumps(broker.settings),
            "CELERY_MEMORY_INTERVAL_SECONDS": str(INTERVAL),
            "C_FORCE_ROOT": "1",
        }
        super().__init__(command, log, **{**settings, **environment})

    def start(self) -> None:
        begun = self.starts
        super().start()
        self.wait_until_up(lambda: self.starts > begun, f"{self.nodename} to be ready")

    @property
    def starts(self) -> int:
        """How often it has said that it is ready."""
        return self.text.count(" ready.") if self.log.exists() else 0

    def logged(self, task: str, end: str = "succeeded") -> int:
        """How many runs of the task its log says to have ended so."""
        return sum(f".{task}[" in line and f"] {end}" in line for line in self.text.splitlines())
