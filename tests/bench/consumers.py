"""What consumes task events, as processes to measure: this exporter and Flower; and the flood that
they are fed with.

Whether a consumer is done is told by the broker and by the process: Redis holds nothing back for
its subscription, and it has not computed for a second. Asking it for its metrics instead would cost
it what is to be measured.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import psutil
import redis
from prometheus_client.parser import text_string_to_metric_families

from tests.bench.flood import WORKERS
from tests.bench.result import BenchError
from tests.integration.exporter import Exporter
from tests.integration.programs import ROOT, Program, answers, free_port
from tests.integration.servers import Server
from tests.integration.waiting import wait_for

#: What one task of the flood has, and how each consumer counts it.
KINDS = ("sent", "received", "started", "succeeded")
INSTALL_SECONDS, SETTLE_SECONDS = 300.0, 600.0
#: A consumer is idle when it has computed for no more than this share of so many seconds.
IDLE_SECONDS, IDLE_SHARE, POLL_SECONDS = 1.0, 0.05, 0.1
#: The process table is this machine's: what else runs here is no part of the figures.
SETTINGS = "processes: {enabled: false}\n"


class Consuming(Program):
    """A consumer. ``port`` is where it answers ``/metrics``."""

    port: int

    def attach(self, broker: Server) -> None:
        """Waits until its subscription stands."""
        self._redis = redis.Redis(port=broker.port)
        self._process = psutil.Process(self.pid)
        wait_for(lambda: self.backlog() is not None, f"{type(self).__name__} to subscribe")
        self.attached = time.monotonic()

    def scrape(self) -> tuple[float, str]:
        """Milliseconds, and the text."""
        begun = time.perf_counter()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/metrics", timeout=60
        ) as response:
            text = response.read().decode()
        return 1000 * (time.perf_counter() - begun), text

    def counted(self, without: str = "") -> dict[str, int]:
        """Events of tasks by kind, of all workers but one."""
        raise NotImplementedError

    def succeeded(self, nodename: str) -> int:
        """Tasks of one worker."""
        return self.counted()["succeeded"] - self.counted(without=nodename)["succeeded"]

    def cpu_seconds(self) -> float:
        return sum(self._process.cpu_times()[:2])

    def resident_mib(self) -> float:
        return self._process.memory_info().rss / 1024**2

    def backlog(self) -> int | None:
        """Bytes that Redis holds back for its subscription to events; ``None`` while there is
        none."""
        found = self._subscriptions()
        return sum(int(each["obl"]) + int(each["omem"]) for each in found) if found else None

    def cut(self) -> None:
        """As Redis does it with a subscriber that is too slow."""
        for each in self._subscriptions():
            self._redis.client_kill_filter(_id=each["id"])

    def _subscriptions(self) -> list[dict[str, str]]:
        """Its clients, as Redis lists them."""
        ports = {connection.laddr.port for connection in self._process.net_connections("tcp")}
        clients: list[dict[str, str]] = self._redis.client_list(_type="pubsub")
        return [
            each
            for each in clients
            if int(each["psub"]) and int(each["addr"].rpartition(":")[2]) in ports
        ]

    def settle(self) -> None:
        """Waits until it is subscribed and has handled all that came."""
        deadline = time.monotonic() + SETTLE_SECONDS
        since, before = time.monotonic(), self.cpu_seconds()
        while time.monotonic() - since < IDLE_SECONDS:
            if self.backlog() != 0 or self.cpu_seconds() - before > IDLE_SHARE * IDLE_SECONDS:
                since, before = time.monotonic(), self.cpu_seconds()
            if time.monotonic() > deadline:
                raise BenchError(
                    f"{type(self).__name__} is not done after {SETTLE_SECONDS:.0f} "
                    f"s:\n{self.text[-2000:]}"
                )
            time.sleep(POLL_SECONDS)


class Ours(Consuming, Exporter):
    """This exporter with its defaults."""

    def __init__(self, folder: Path, broker: Server, *, processes: bool = False) -> None:
        settings = folder / "exporter.yaml"
        settings.write_text("" if processes else SETTINGS)
        super().__init__(folder / "ours.log", broker.url, "--config", str(settings))

    def counted(self, without: str = "") -> dict[str, int]:
        counts = dict.fromkeys(KINDS, 0)
        for (name, labels), value in self.samples().items():
            kind = name.removeprefix("celery_task_").removesuffix("_total")
            if kind in counts and ("worker", without) not in labels:
                counts[kind] += int(value)
        return counts


class Flower(Consuming):
    """Flower with its defaults, in the virtual environment that it was installed in."""

    def __init__(self, folder: Path, broker: Server, python: Path) -> None:
        self.port = free_port()
        command = [str(python), "-W", "ignore", "-m", "celery", "--broker", broker.url, "flower"]
        command += ["--address=127.0.0.1", f"--port={self.port}", "--logging=WARNING"]
        super().__init__(command, folder / "flower.log")

    def start(self) -> None:
        super().start()
        wait_for(lambda: answers(self.port), "Flower")

    def counted(self, without: str = "") -> dict[str, int]:
        counts = dict.fromkeys(KINDS, 0)
        for family in text_string_to_metric_families(self.scrape()[1]):
            for sample in family.samples:
                kind = sample.labels.get("type", "").removeprefix("task-")
                if (
                    sample.name == "flower_events_total"
                    and kind in counts
                    and sample.labels["worker"] != without
                ):
                    counts[kind] += int(sample.value)
        return counts


def installed_flower(folder: Path) -> Path:
    """The Python of a new virtual environment with Flower and our own versions of what both use.
    Raises ``BenchError``."""
    home = folder / "flower"
    python = home / "bin" / "python"
    same = [
        f"{name}=={version(name.partition('[')[0])}"
        for name in ("celery[redis]", "kombu", "redis", "prometheus-client")
    ]
    for command in (
        [sys.executable, "-m", "venv", str(home)],
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "flower",
            *same,
        ],
    ):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise BenchError(
                f"Flower could not be installed within {INSTALL_SECONDS:.0f} s"
            ) from None
        if done.returncode:
            raise BenchError(
                f"Flower could not be installed; it needs a package index:\n{done.stderr[-1000:]}"
            )
    return python


def flower_version(python: Path) -> str:
    (library,) = python.parent.parent.glob("lib/python*/site-packages")
    return next(each.version for each in distributions(name="flower", path=[str(library)]))


@contextmanager
def running(consumer: Any, broker: Server) -> Iterator[Any]:
    try:
        consumer.start()
        consumer.attach(broker)
        yield consumer
    finally:
        consumer.ensure_stopped()


class Flood:
    """A producer of task events (``tests.bench.flood``)."""

    def __init__(self, broker: Server, name: str) -> None:
        command = [sys.executable, "-m", "tests.bench.flood", broker.url, name]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

        self._asked = 0

    def begin(self, tasks: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{tasks}\n")
        self._process.stdin.flush()
        self._asked += 1

    def busy(self, wait: float | None = None) -> bool:
        """Whether some of what was begun is still to be published; waits so many seconds, or until
        nothing is."""
        assert self._process.stdout is not None
        while self._asked and select.select([self._process.stdout], [], [], wait)[0]:
            if not self._process.stdout.readline():
                raise BenchError("the flood ended before it was told to")
            self._asked -= 1
        return bool(self._asked)

    def send(self, tasks: int) -> None:
        """Returns when all is published."""
        self.begin(tasks)
        self.busy()

    def beat(self) -> None:
        """A heartbeat of each of its workers."""
        self.send(0)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


@contextmanager
def floods(broker: Server, *names: str) -> Iterator[list[Flood]]:
    """Each worker of theirs has run one task and told so: from there on losses can be told."""
    producers: list[Flood] = []
    try:
        producers += [Flood(broker, name) for name in names]
        for producer in producers:
            producer.send(WORKERS)
            producer.beat()
        yield producers
    finally:
        for producer in producers:
            producer.stop()


#: Starts a consumer on a broker, in a folder.
Make = Callable[[Path, Server], Consuming]
