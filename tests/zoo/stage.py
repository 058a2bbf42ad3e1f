"""A case at work: an exporter, a worker, the load of the case's task and its neighbours, and who
looks on.

The case's task is sent at a steady pace mixed with its neighbours', never far ahead of the workers,
while the exporter's ``/api/v1/diagnosis`` is asked twice a second: so "named after so many runs"
counts completed runs.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import signal
import tempfile
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from redis import Redis

from tests.integration.exporter import Exporter
from tests.integration.servers import Server
from tests.integration.waiting import PATIENCE
from tests.integration.worker import Worker
from tests.zoo import baseline, judge
from tests.zoo.case import Case, app, name_of
from tests.zoo.judge import Verdict

#: Sent and not yet begun, at most: some of them always wait in the worker, which prefetches four
#: for each process.
AHEAD = 16
POLL_SECONDS = 0.5
RSS_SECONDS = 1.0
REPORT_SECONDS = 2.0
#: After the last run: what the agents still have to say takes an interval or two.
SETTLE_SECONDS = 3 * REPORT_SECONDS + 2.0
#: A case that takes this many times its due time, and longer than anything is waited for, has a
#: broken worker.
SLOWEST = 8.0
#: For the agent to tell of all runs before the case settles, on a crowded machine.
TELL_SECONDS = 60.0
PATH = "/api/v1/diagnosis"
#: Ends the cases that are running.
STOP = threading.Event()

Progress = Callable[[Verdict], None]


class ZooWorker(Worker):
    """A worker on the zoo's application."""

    def __init__(
        self, log: Path, broker: Server, name: str, *options: str, **environment: str
    ) -> None:
        super().__init__(log, broker, name, *options, **environment)
        self.command[self.command.index("tests.integration.tasks")] = "tests.zoo.case"

    def end(self, *, kill: bool) -> None:
        """Children that outlive it, as those of a killed worker do, are killed."""
        if self.process is None:
            return
        children = (
            psutil.Process(self.pid).children(recursive=True) if psutil.pid_exists(self.pid) else []
        )
        with contextlib.suppress(AssertionError):
            self.stop(signal.SIGKILL if kill else signal.SIGTERM)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


class Load:
    """Sends a case's runs and its neighbours', and knows how many are done by what still waits in
    the broker."""

    def __init__(self, case: Case, broker: Server, queue: str) -> None:
        self._case = case
        self._queue = queue
        self._redis = Redis.from_url(broker.url)
        self._connection = app.connection_for_write(broker.url)
        self._producer = self._connection.Producer()
        self._total = 0
        self._owed = dict.fromkeys(case.beside, 0.0)
        #: For each run of the case, how many tasks had been sent up to it.
        self._places: list[int] = []
        self.done = 0

    def close(self) -> None:
        self._connection.release()
        self._redis.close()

    @property
    def sent(self) -> int:
        return len(self._places)

    @property
    def waiting(self) -> int:
        """Messages that no process has begun with."""
        waiting: Any = self._redis.pipeline().llen(self._queue).hlen("unacked").execute()
        return int(sum(waiting))

    def look(self) -> int:
        """Asks the broker; answers how many of all tasks wait. A flood's tasks are done when the
        worker has taken them."""
        waiting = int(self._redis.llen(self._queue)) if self._case.eta_seconds else self.waiting  # type: ignore[arg-type]
        self.done = bisect.bisect_right(self._places, self._total - waiting)
        return waiting

    def send_one(self) -> None:
        """One run of the case, and its neighbours' share."""
        number = self.sent
        self._send(self._case.sent, self._case.argument(number), eta_seconds=self._case.eta_seconds)
        self._places.append(self._total)
        for task, runs in self._case.beside.items():
            self._owed[task] += runs
            while self._owed[task] >= 1.0:
                self._owed[task] -= 1.0
                self._send(name_of(task), number)

    def _send(self, task: str, argument: Any, eta_seconds: float | None = None) -> None:
        app.send_task(
            task, (argument,), queue=self._queue, producer=self._producer, countdown=eta_seconds
        )
        self._total += 1


class Watch:
    """Looks at the exporter and at the worker's resident memory while a case runs."""

    def __init__(self, verdict: Verdict, exporter: Exporter, worker: Worker) -> None:
        self._verdict = verdict
        self._exporter = exporter
        self._worker = worker
        self._began = time.monotonic()
        self._polled = self._sampled = 0.0
        self._times: list[float] = []
        self._resident: list[float] = []

    def look(self, runs: int) -> None:
        """Whatever is due."""
        now = time.monotonic()
        self._verdict.runs, self._verdict.seconds = runs, now - self._began
        if now - self._polled >= POLL_SECONDS:
            self._polled = now
            self._verdict.see(diagnosis(self._exporter), runs, now - self._began)
        if now - self._sampled >= RSS_SECONDS:
            self._sampled = now
            self._times.append(now)
            self._resident.append(baseline.resident(self._worker.pid))

    def all_told(self, case: Case) -> bool:
        """Whether the exporter knows of all runs; of those that lie in the main process, it is not
        asked."""
        if case.eta_seconds:
            return True
        labels = {"worker": self._worker.nodename, "name": case.sent}
        started = self._exporter.value("celery_task_started_total", **labels)
        return started is not None and started >= case.runs

    def end(self) -> None:
        """What today's users would conclude, and whether the agent itself had trouble."""
        labels = {"worker": self._worker.nodename}
        self._verdict.baseline_fired = baseline.trend(self._times, self._resident).fired
        families = (
            "celery_task_memory_growth_bytes_total",
            "celery_task_memory_release_bytes_total",
        )
        growth, release = (self._exporter.by_label(family, "name", **labels) for family in families)
        self._verdict.baseline_task = baseline.likeliest(growth, release)
        errors = self._exporter.value("celery_agent_errors_total", **labels)
        if errors or "memory agent failed" in self._worker.text:
            self._verdict.trouble = f"the agent counted {errors or 0:.0f} errors of its own"
        if errors is None:
            self._verdict.trouble = "the agent told nothing"


def diagnosis(exporter: Exporter) -> judge.Answer:
    """Nothing is named where the exporter has no diagnosis yet."""
    try:
        answer: judge.Answer = json.loads(exporter.text_of(PATH))
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return {}
    return answer


def run_case(
    case: Case,
    broker: Server,
    folder: Path,
    progress: Progress = lambda verdict: None,
    *,
    settle_seconds: float = SETTLE_SECONDS,
) -> Verdict:
    """Runs one case, and empties the broker for it. Raises ``AssertionError`` when a program does
    not start or get on."""
    verdict = Verdict(case)
    with Redis.from_url(broker.url) as redis:
        redis.flushall()
    with shared_folder() as shared, contextlib.ExitStack() as stack:
        exporter = Exporter(folder / "exporter.log", broker.url)
        stack.callback(exporter.ensure_stopped)
        exporter.start()
        exporter.wait_until_ready()
        environment = {
            "ZOO_FOLDER": str(folder),
            "ZOO_SHARED": shared,
            "CELERY_MEMORY_INTERVAL_SECONDS": f"{REPORT_SECONDS}",
        }
        if case.backend:
            environment["TEST_BACKEND_URL"] = broker.url.removesuffix("/0") + "/1"
        worker = ZooWorker(folder / "worker.log", broker, case.name, *case.pool, **environment)
        # A flood's tasks would be given back one by one at the end.
        stack.callback(worker.end, kill=case.eta_seconds is not None)
        worker.start()
        load = Load(case, broker, worker.queue)
        stack.callback(load.close)
        watch = Watch(verdict, exporter, worker)
        drive(case, load, watch, worker, lambda: progress(verdict), settle_seconds=settle_seconds)
        watch.end()
    return verdict


def drive(
    case: Case,
    load: Load,
    watch: Watch,
    worker: Worker,
    progress: Callable[[], None],
    *,
    settle_seconds: float,
) -> None:
    """Sends all runs, waits until they are done, and looks on for a little longer."""
    began = time.monotonic()
    ahead = case.runs if case.eta_seconds else AHEAD
    latest = began + max(PATIENCE, 60.0 + SLOWEST * case.runs / case.per_second)
    done: float | None = None
    settled: float | None = None
    while settled is None or time.monotonic() < settled:
        now = time.monotonic()
        waiting = load.look()
        due = min(case.runs, int((now - began) * case.per_second) + 1)
        while load.sent < due and waiting <= ahead and time.monotonic() - now < POLL_SECONDS:
            load.send_one()
            waiting += 1 + round(sum(case.beside.values()))
        watch.look(load.done)
        progress()
        assert not STOP.is_set(), "interrupted"
        assert worker.process is not None
        assert worker.process.poll() is None, f"the worker ended:\n{worker.text[-2000:]}"
        if done is None and load.done >= case.runs:
            done = now
        if settled is None and done and (watch.all_told(case) or now > done + TELL_SECONDS):
            settled = now + settle_seconds
        assert settled or now < latest, (
            f"{load.done} of {case.runs} runs, then no more:\n{worker.text[-2000:]}"
        )
        time.sleep(0.02)


@contextlib.contextmanager
def shared_folder() -> Iterator[str]:
    """In memory, where there is such a place; removed at the end."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="zoo-", dir=parent) as folder:
        yield folder
