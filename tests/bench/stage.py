"""A real Redis and real workers to measure: the integration tests' own, quieter.

How many tasks are done is told by what Redis still holds: the queue, and what the worker has taken
and not acknowledged (a worker acknowledges a task when a child begins it). Asking costs the broker
two commands every 50 ms and the tasks nothing, where a counter of theirs would be most of what a
task that does nothing costs.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import psutil
import pytest
import redis

from tests.bench.result import BenchError
from tests.integration.programs import Program, free_port, need
from tests.integration.servers import Server
from tests.integration.worker import Worker

POLL_SECONDS = 0.05
#: A worker that is slower than this is taken for one that hangs.
START_SECONDS = 90.0
LEAST_TASKS_PER_SECOND = 20.0
CHILDREN = 2
TESTS_APPLICATION = "tests.integration.tasks"


@contextmanager
def running_redis(folder: Path) -> Iterator[Server]:
    """One that keeps nothing on disk. Raises ``BenchError`` where it is not installed."""
    try:
        program = need("redis-server")
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        raise BenchError(str(error)) from None
    port = free_port()
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    server = Server(command, folder / "redis.log", f"redis://127.0.0.1:{port}/0", port)
    os.environ["TEST_BROKER_URL"] = server.url  # the applications read it when they are imported
    try:
        server.start()
        yield server
    finally:
        with redirect_stdout(None):
            server.ensure_stopped()


def redis_version() -> str:
    words = subprocess.run(
        [need("redis-server"), "--version"], capture_output=True, text=True, check=True
    ).stdout.split()
    return next(word.removeprefix("v=") for word in words if word.startswith("v="))


class BenchWorker(Worker):
    """A prefork worker with Celery's default log level, and the agent's default settings if it has
    one."""

    def __init__(
        self,
        folder: Path,
        broker: Server,
        name: str,
        *options: str,
        agent: bool,
        application: str = TESTS_APPLICATION,
        **environment: str,
    ) -> None:
        options = ("-c", str(CHILDREN), "-l", "WARNING", *options)
        environment = {"CELERY_MEMORY_INTERVAL_SECONDS": "", **environment}
        log = folder / f"{name}.log"
        super().__init__(
            log, broker, name, *options, agent=agent, application=application, **environment
        )

    def start(self) -> None:
        """Without waiting: at this level a worker does not tell that it is ready."""
        Program.start(self)

    def ensure_stopped(self) -> None:
        """Without the log's end: whoever needs it has it in a ``BenchError``."""
        with redirect_stdout(None):
            super().ensure_stopped()

    def tree(self) -> list[psutil.Process]:
        """The main process, then its children."""
        main = psutil.Process(self.pid)
        return [main, *sorted(main.children(), key=lambda child: child.pid)]

    def cpu_seconds(self) -> tuple[float, float]:
        """User and system time so far: of the main process, and of its children together, those
        included that are gone."""
        main, *children = self.tree()
        own = main.cpu_times()
        spent = own.children_user + own.children_system
        for child in children:
            with suppress(psutil.NoSuchProcess):
                spent += sum(child.cpu_times()[:2])
        return own.user + own.system, spent

    def check(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise BenchError(
                f"the worker ended with status {self.process.returncode}:\n{self.text[-2000:]}"
            )


class Load:
    """The tasks of one worker: sent, and done."""

    def __init__(self, broker: Server, worker: BenchWorker) -> None:
        from tests.integration import tasks

        self.sent = 0
        self._app = tasks.app
        self._broker = broker
        self._worker = worker
        self._redis = redis.Redis(port=broker.port)
        self._redis.flushdb()

    def send(self, names: list[str]) -> None:
        """One run of each task."""
        with self._app.connection_for_write(self._broker.url) as connection:
            producer = connection.Producer()
            for name in names:
                self._app.send_task(name, queue=self._worker.queue, producer=producer)
        self.sent += len(names)

    def done(self) -> int:
        """Tasks of those sent that a child has begun. A task on its way from queue to worker counts
        for that moment."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.llen(self._worker.queue)
        pipeline.hlen("unacked")
        waiting, taken = pipeline.execute()
        return self.sent - int(waiting) - int(taken)

    def wait_for(self, number: int, tell: Callable[[int], None]) -> int:
        """Waits until so many are done; raises ``BenchError`` when the worker ends or hangs."""
        deadline = time.monotonic() + START_SECONDS + number / LEAST_TASKS_PER_SECOND
        while (done := self.done()) < number:
            self._worker.check()
            if time.monotonic() > deadline:
                raise BenchError(
                    f"only {done} of {number} tasks were done in time:\n{self._worker.text[-2000:]}"
                )
            tell(done)
            time.sleep(POLL_SECONDS)
        return done
