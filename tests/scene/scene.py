"""Everything at once, ended in order: a broker, three workers, a client's load, the exporter,
Prometheus with the rules."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from celery import Celery

from tests.integration import servers
from tests.integration.exporter import Exporter
from tests.integration.observers import Prometheus
from tests.integration.programs import ROOT, Program
from tests.integration.waiting import at_least, wait_for

JOB = "celery"
SCRAPE_SECONDS = 2
#: Of the worker that runs out of it.
LIMIT_BYTES = 400 * 1024 * 1024
TOO_MUCH_MEBIBYTES = 600
LEGACY_IMPORTS = 0.4
RULES = ROOT / "grafana" / "rules" / "*.yaml"


class Cgroup:
    """A memory cgroup with a limit, of version 1 or 2."""

    def __init__(self, name: str, limit_bytes: int) -> None:
        base = Path("/sys/fs/cgroup")
        v1 = (base / "memory").is_dir()
        self.path = (base / "memory" if v1 else base) / name
        self.path.mkdir()
        limit = "memory.limit_in_bytes" if v1 else "memory.max"
        try:
            (self.path / limit).write_text(str(limit_bytes))
        except OSError:
            self.path.rmdir()
            raise

    @property
    def command(self) -> list[str]:
        """What a command line begins with to run in it."""
        return ["/bin/sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh"]

    def remove(self) -> None:
        self.path.rmdir()


class Worker(Program):
    def __init__(
        self, folder: Path, broker: str, name: str, queues: str, *options: str, agent: bool = True
    ) -> None:
        self.nodename = f"celery@{name}"
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "celery",
            "-A",
            "tests.scene.shop",
            "worker",
            "-n",
            self.nodename,
        ]
        command += [
            "-Q",
            queues,
            "-l",
            "WARNING",
            *(["-I", "celery_memory_exporter.autoload"] if agent else []),
            *options,
        ]
        environment = {
            "SCENE_BROKER_URL": broker,
            "C_FORCE_ROOT": "1",
            "CELERY_MEMORY_INTERVAL_SECONDS": "2",
        }
        super().__init__(
            command, folder / f"{name}.log", CELERY_MEMORY_CENSUS_SECONDS="4", **environment
        )


class Load:
    """A client that sends at a steady pace."""

    def __init__(self, broker: str, *, too_much: bool) -> None:
        self._app = Celery("client", broker=broker)
        self._app.conf.update(task_send_sent_event=True)
        self._too_much = too_much
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def start(self) -> None:
        self._thread.start()

    def ensure_stopped(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._app.close()

    def _run(self) -> None:
        with self._app.connection_for_write() as connection:
            producer = connection.Producer()
            for number in itertools.count(1):
                for name, argument, queue in self._due(number):
                    self._app.send_task(f"shop.{name}", (argument,), queue=queue, producer=producer)
                if self._stopping.wait(0.1):
                    return

    def _due(self, number: int) -> Iterator[tuple[str, Any, str]]:
        """Ten times a second."""
        for name in ("orders.price", "carts.expire", "payments.charge", "payments.charge"):
            yield name, number, "celery"
        if number % 2 == 0:
            yield "mail.send", number // 2, "celery"
            yield "images.resize", number, "images"
        if number % 3 == 0:
            yield "search.index", number // 3, "celery"
            # Without a pattern, or nothing could tell the two apart from outside.
            yield (
                "legacy.import" if random.random() < LEGACY_IMPORTS else "legacy.ping",
                number,
                "legacy",
            )
        if number % 15 == 0:
            yield "reports.build", 10_000, "celery"
        if number % 10 == 0:
            yield "stock.sync", 2.6, "stock"
        if number % 40 == 0:
            yield (
                "video.encode",
                TOO_MUCH_MEBIBYTES if self._too_much and number % 600 == 120 else 40,
                "video",
            )


class Scene:
    """``with Scene(folder) as scene:`` starts it; ``cgroup`` is ``None`` where none can be made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Scene:
        with contextlib.ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, stack: contextlib.ExitStack) -> None:
        def run(program: Any) -> Any:
            stack.callback(program.ensure_stopped)
            program.start()
            return program

        self.cgroup = self._cgroup(stack)
        broker = run(servers.redis(self.folder, "--save", "")).url
        self.exporter: Exporter = run(self._exporter(broker))
        self.prometheus: Prometheus = run(
            Prometheus(
                self.folder,
                self.exporter.port,
                job=JOB,
                scrape_seconds=SCRAPE_SECONDS,
                rules=str(RULES),
            )
        )
        recycling = ("--max-tasks-per-child", "150", "--max-memory-per-child", "300000")
        capped = Worker(self.folder, broker, "media-1", "images,video", "-c", "2", *recycling)
        capped.command = [*(self.cgroup.command if self.cgroup else []), *capped.command]
        self.workers = [
            run(Worker(self.folder, broker, "shop-1", "celery", "-c", "2")),
            run(
                Worker(
                    self.folder,
                    broker,
                    "shop-2",
                    "celery,stock",
                    "-c",
                    "2",
                    "--max-memory-per-child",
                    "400000",
                )
            ),
            run(capped),
            run(Worker(self.folder, broker, "legacy-1", "legacy", "-c", "1", "-E", agent=False)),
        ]
        run(Load(broker, too_much=self.cgroup is not None))

    def _cgroup(self, stack: contextlib.ExitStack) -> Cgroup | None:
        try:
            cgroup = Cgroup(f"celery-scene-{os.getpid()}", LIMIT_BYTES)
        except OSError:
            return None
        stack.callback(cgroup.remove)
        return cgroup

    def _exporter(self, broker: str) -> Exporter:
        path = self.folder / "exporter.yaml"
        settings = {
            "broker": {"url": broker},
            "queues": {"interval_seconds": 2, "inspect_interval_seconds": 5},
            "processes": {"interval_seconds": 2, "shared_memory_interval_seconds": 5},
        }
        path.write_text(yaml.safe_dump(settings))
        return Exporter(self.folder / "exporter.log", None, "--config", str(path))

    def wait_until_told(self) -> None:
        """Until the leaks are named and Prometheus has seen them."""
        leaks = 'count(celery_leak_suspect{name=~"shop.orders.price|shop.images.resize"})'

        def named() -> float:
            return sum(float(each["value"][1]) for each in self.prometheus.query(leaks))

        wait_for(named, "both leaks to be named", at_least(2))


def wait_seconds(seconds: float) -> None:
    """For a person's Ctrl-C or the time to be over."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < deadline:
            time.sleep(1)
