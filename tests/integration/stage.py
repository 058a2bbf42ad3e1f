"""What a test has at hand: a broker, and the exporters and workers that it starts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from tests.integration.exporter import Exporter
from tests.integration.programs import Program
from tests.integration.servers import Server
from tests.integration.worker import Worker


class Stage:
    """All that is on it ends with the test."""

    def __init__(self, folder: Path, broker: Server, tasks: Any) -> None:
        self.folder = folder
        self.broker = broker
        self.tasks = tasks
        self._programs: list[Program] = []

    def _run(self, program: Program) -> None:
        self._programs.append(program)
        program.start()

    def exporter(
        self, *options: str, broker: bool = True, port: int | None = None, ready: bool = True
    ) -> Exporter:
        exporter = Exporter(
            self.folder / f"exporter{len(self._programs)}.log",
            self.broker.url if broker else None,
            *options,
            port=port,
        )
        self._run(exporter)
        if ready:
            exporter.wait_until_ready()
        return exporter

    def configured(self, *, ready: bool = True, **settings: Any) -> Exporter:
        """An exporter with these settings of its configuration file."""
        path = self.folder / f"config{len(self._programs)}.yaml"
        path.write_text(yaml.safe_dump(settings))
        return self.exporter("--config", str(path), broker=False, ready=ready)

    def worker(
        self, *options: str, name: str = "", agent: bool = True, **environment: str
    ) -> Worker:
        number = len(self._programs)
        name = name or f"w{number}-{self.broker.port}-{self.folder.name}"
        # Each object is counted, however slow the machine is today: the tests ask for exact
        # numbers.
        environment = {"CELERY_MEMORY_CENSUS_PAUSE_SECONDS": "1", **environment}
        worker = Worker(
            self.folder / f"worker{number}.log",
            self.broker,
            name,
            *options,
            agent=agent,
            **environment,
        )
        self._run(worker)
        return worker

    def send(self, worker: Worker, task: str, *arguments: Any, times: int = 1) -> None:
        with self.broker.connection() as connection:
            producer = connection.Producer()
            for _ in range(times):
                getattr(self.tasks, task).apply_async(
                    arguments, queue=worker.queue, producer=producer
                )

    def end(self) -> None:
        """All together, since each takes its time; and all of them, whatever one of them does."""
        with contextlib.ExitStack() as stack:
            for program in self._programs:
                stack.callback(program.ensure_stopped)
                program.begin_to_stop()
