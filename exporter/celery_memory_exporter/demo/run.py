"""``celery-memory-exporter demo``: a real prefork worker, a steady load, the exporter, and what it
finds, in the terminal."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from celery_memory_exporter.config import checks
from celery_memory_exporter.config.settings import Broker, Config, Listen, Processes
from celery_memory_exporter.demo import load, program, prometheus, view
from celery_memory_exporter.demo.prometheus import Prometheus, PrometheusError
from celery_memory_exporter.exporter import Exporter
from celery_memory_exporter.web.server import bind

NODENAME = "demo@localhost"
INTERVAL_SECONDS = 2.0
#: How long the worker may take to come up on a slow machine.
START_SECONDS = 45.0
WORKER_LOG = "worker.log"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. ``alertmanager`` is told of alerts; both addresses are
    ``host:port``."""

    listen_address: str
    seconds: float | None = None
    prometheus: bool = False
    alertmanager: str | None = None


class WorkerError(Exception):
    """The worker does not do what it should; the message says what, and ends with its log's end."""

    def __init__(self, what: str, log: Path) -> None:
        last = log.read_text(errors="replace").splitlines()[-20:]
        super().__init__("\n".join([f"the demo's worker {what}. The end of its log:", *last]))


def demo(options: Options, stop: threading.Event) -> int:
    """Runs until ``stop`` is set or the seconds are over; the answer is the exit status."""
    try:
        listener = bind(*checks.split_address(options.listen_address))
    except (OSError, ValueError) as error:
        return fail(f"cannot listen on {options.listen_address}: {error}")
    try:
        with workplace() as folder:
            print(f"Starting a Celery worker with two children in {folder} …", flush=True)
            summary = play(folder, listener, options, stop)
    except (PrometheusError, WorkerError) as error:
        return fail(str(error))
    print(summary, flush=True)
    return 0


def fail(message: str) -> int:
    print(f"celery-memory-exporter: {message}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder that is the broker, and where the logs are; nothing is left of it."""
    with tempfile.TemporaryDirectory(
        prefix="celery-memory-demo-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        for part in ("messages", "control"):
            (folder / part).mkdir()
        os.environ["CELERY_MEMORY_DEMO_FOLDER"] = str(folder)
        # kombu moves each message through the temporary folder.
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        yield folder


def play(folder: Path, listener: socket.socket, options: Options, stop: threading.Event) -> str:
    """The whole of it; the answer is the summary. Raises ``PrometheusError`` or ``WorkerError``."""
    history = view.History(NODENAME, f"http://{address_of(listener)}")
    # The exporter first: kombu cannot read a folder's bindings while another process writes them.
    with (
        running_exporter(folder, listener, stop) as exporter,
        observed(folder, listener, options) as observer,
        running_worker(folder) as worker,
    ):
        with load.running(folder / "messages"):
            watch(
                exporter,
                worker,
                history,
                seconds=options.seconds,
                stop=stop,
                observer=observer,
                log=folder / WORKER_LOG,
            )
        return view.summary(history, exporter.diagnosis())


def observed(
    folder: Path, listener: socket.socket, options: Options
) -> contextlib.AbstractContextManager[Prometheus | None]:
    """A Prometheus, if one is wanted."""
    if not options.prometheus:
        return contextlib.nullcontext()
    return prometheus.running(folder, address_of(listener), options.alertmanager)


def watch(
    exporter: Exporter,
    worker: subprocess.Popen[bytes],
    history: view.History,
    *,
    seconds: float | None,
    stop: threading.Event,
    observer: Prometheus | None,
    log: Path,
) -> None:
    """Shows the table until the end. Raises ``WorkerError``."""
    waiting_since = time.monotonic()
    while not stop.is_set():
        if worker.poll() is not None:
            raise WorkerError(f"ended with status {worker.returncode}", log)
        history.add(exporter.snapshot(), time.monotonic())
        if not history.started and time.monotonic() - waiting_since > START_SECONDS:
            raise WorkerError(f"sent no report within {START_SECONDS:.0f} s", log)
        if history.started:
            print(view.table(history, clear=sys.stdout.isatty()), flush=True)
            if observer is not None:
                print(view.alerts(f"{observer.url}/alerts", observer.alerts(NODENAME)), flush=True)
        if seconds is not None and history.seconds >= seconds:
            break
        stop.wait(INTERVAL_SECONDS if history.started else 0.2)


def running_worker(folder: Path) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """A worker as users start one, with the agent turned on by ``-I``."""
    command = [sys.executable, "-m", "celery", "-A", "celery_memory_exporter.demo.shop", "worker"]
    command += ["-n", NODENAME, "-c", "2", "-l", "WARNING", "--without-gossip", "--without-mingle"]
    command += ["-I", "celery_memory_exporter.autoload"]
    environment = {
        **os.environ,
        "CELERY_MEMORY_INTERVAL_SECONDS": str(INTERVAL_SECONDS),
        "CELERY_MEMORY_CENSUS_SECONDS": str(INTERVAL_SECONDS),
        "C_FORCE_ROOT": "1",  # Celery refuses pickle as root; the demo uses JSON only
    }
    return program.running(command, folder / WORKER_LOG, environment)


@contextlib.contextmanager
def running_exporter(
    folder: Path, listener: socket.socket, stop: threading.Event
) -> Iterator[Exporter]:
    """Once its sources work, or ``stop`` is set."""
    from celery_memory_exporter.demo import shop

    settings = Config(
        broker=Broker(url=shop.BROKER_URL, transport_options=shop.transport_options(folder)),
        listen=Listen(address=address_of(listener)),
        processes=Processes(interval_seconds=INTERVAL_SECONDS),
    )
    exporter = Exporter(settings, listener)
    exporter.start()
    try:
        while exporter.unready() and not stop.wait(0.05):
            pass
        yield exporter
    finally:
        exporter.stop()


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
