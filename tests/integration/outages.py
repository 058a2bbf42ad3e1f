"""What happens to workers, brokers and exporters: they are killed and started again, and tests know
when that was."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Iterator

import psutil

from tests.integration.exporter import Exporter
from tests.integration.programs import Program
from tests.integration.servers import Server
from tests.integration.waiting import PATIENCE, wait_for
from tests.integration.worker import Worker


@dataclasses.dataclass
class Outage:
    """Unix times. What was away is back at its end."""

    what: str
    begin: float
    end: float = dataclasses.field(default=float("inf"))


class Outages(list[Outage]):
    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        self.append(Outage(what, time.time()))
        yield
        self[-1].end = time.time()

    def of(self, what: str) -> Outage:
        (outage,) = (each for each in self if each.what == what)
        return outage


def children(worker: Worker) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children()


def kill_a_child(worker: Worker) -> None:
    """Until there is another one."""
    before = children(worker)
    before[0].kill()
    wait_for(
        lambda: children(worker),
        f"another child in the place of {before[0]}",
        lambda now: len(now) == len(before) and before[0] not in now,
    )


def restart_killed(worker: Worker) -> None:
    assert worker.process is not None
    orphans = children(worker)
    worker.process.kill()
    worker.process.wait()
    _, alive = psutil.wait_procs(orphans, PATIENCE)
    assert not alive, "children of a killed worker end by themselves"
    worker.start()


def restart_broker(
    broker: Server,
    exporter: Exporter,
    *workers: Worker,
    end: Callable[[Server], object] = Server.stop,
) -> set[str]:
    """Names of workers that died of it, since kombu 5.7 cannot always close what is broken. They
    are started again, as is usual."""
    connected = {worker: connections(worker) for worker in workers}
    died = set()

    def connected_again(worker: Worker) -> int:
        if not worker.running:
            died.add(worker.nodename)
            worker.start()
        return connections(worker) - connected[worker]

    end(broker)
    wait_for(exporter.readiness, "the exporter to notice")
    broker.start()
    for worker in workers:
        wait_for(
            lambda worker=worker: connected_again(worker),
            f"{worker.nodename} to be connected again",
        )
    exporter.wait_until_ready()
    return died


def kill(program: Program) -> None:
    """With all that it started: a server may be behind a script."""
    processes = psutil.Process(program.pid).children(recursive=True)
    program.stop(signal.SIGKILL)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, PATIENCE)


def connections(worker: Worker) -> int:
    """How often its log says that it is connected."""
    return worker.text.count("Connected to ")


def restart_exporter(exporter: Exporter) -> None:
    exporter.stop()
    exporter.start()
    exporter.wait_until_ready()
