"""Real servers, real workers, a real exporter: started here on free ports, ended here by their
pid."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kombu import Connection
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import IN_CI

T = TypeVar("T")
ROOT = Path(__file__).parent.parent.parent
INTERVAL = 1.0
#: Generous, because the machines are shared: a condition that holds ends the wait at once.
PATIENCE = float(os.environ.get("TEST_PATIENCE", "60"))


def wait_for(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """Polls until the condition holds; the answer is what it answered."""
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError):
            answer = condition()
            if answer:
                return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:.0f} s in vain for {what}")
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def need(*programs: str) -> str:
    """The first of the programs that is there; without any the test skips, and in CI fails."""
    for program in programs:
        path = shutil.which(program)
        if path:
            return path
    message = f"{' or '.join(programs)} is not installed; tests/prepare.sh servers installs it"
    if IN_CI:
        pytest.fail(message)
    pytest.skip(message)


class Program:
    """A process of ours with its log."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self.command = command
        self.log = log
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, signum: int = signal.SIGTERM, patience: float = 30.0) -> int:
        """The exit status. What does not end in time is killed, and that is an error."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            return self.process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"{self.command[:3]} did not stop within {patience:.0f} s:\n{self.text[-2000:]}"
            ) from None

    def ensure_stopped(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()


class Server(Program):
    """A broker on one port, which can be stopped and started again."""

    def __init__(
        self, command: list[str], log: Path, url: str, port: int, **environment: str
    ) -> None:
        super().__init__(command, log, **environment)
        self.url = url
        self.port = port
        #: What Celery has to know beside the URL, under Celery's own names.
        self.settings: dict[str, Any] = {}

    def connection(self) -> Connection:
        """As a client of this broker has it."""
        options = self.settings.get("broker_transport_options", {})
        return Connection(
            self.url, ssl=self.settings.get("broker_use_ssl", False), transport_options=options
        )

    def start(self) -> None:
        super().start()
        wait_for(lambda: answers(self.port), f"{self.command[0]} on port {self.port}")


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program = need("redis-server")
    folder = tmp_path_factory.mktemp("redis")
    port = free_port()
    # Kept on disk at shutdown, so that tasks survive a restart as they do on users' brokers.
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
    ]
    server = Server(command, folder / "log", f"redis://127.0.0.1:{port}/0", port)
    server.start()
    yield server
    server.ensure_stopped()


@dataclass(frozen=True)
class Certificates:
    """Files. One certificate is for server and client alike, and for ``localhost`` and
    127.0.0.1."""

    authority: str
    certificate: str
    key: str
    #: Another authority, which has signed nothing here.
    stranger: str


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    program = need("openssl")
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "names").write_text("subjectAltName = DNS:localhost, IP:127.0.0.1")
    new = "req -newkey rsa:2048 -nodes"
    for arguments in (
        f"{new} -x509 -subj /CN=authority -keyout authority.key -out authority.pem",
        f"{new} -x509 -subj /CN=stranger -keyout stranger.key -out stranger.pem",
        f"{new} -subj /CN=localhost -keyout key.pem -out request.pem",
        "x509 -req -in request.pem -CA authority.pem -CAkey authority.key -set_serial 1 -extfile "
        "names -out certificate.pem",
    ):
        subprocess.run([program, *arguments.split()], cwd=folder, check=True, capture_output=True)
    return Certificates(
        *(
            str(folder / name)
            for name in ("authority.pem", "certificate.pem", "key.pem", "stranger.pem")
        )
    )


@pytest.fixture(scope="session")
def rediss_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Server]:
    """Redis over TLS alone, which asks its clients for a certificate."""
    program = need("redis-server")
    folder = tmp_path_factory.mktemp("rediss")
    port = free_port()
    # A second address, which its certificate is not for.
    command = [
        program,
        "--port",
        "0",
        "--tls-port",
        str(port),
        "--bind",
        "127.0.0.1",
        "127.0.0.2",
        "--dir",
        str(folder),
    ]
    command += ["--tls-cert-file", certificates.certificate, "--tls-key-file", certificates.key]
    command += ["--tls-ca-cert-file", certificates.authority]
    server = Server(command, folder / "log", f"rediss://127.0.0.1:{port}/0", port)
    files = {
        "ssl_ca_certs": certificates.authority,
        "ssl_certfile": certificates.certificate,
        "ssl_keyfile": certificates.key,
    }
    server.settings = {"broker_use_ssl": {"ssl_cert_reqs": "required", **files}}
    server.start()
    yield server
    server.ensure_stopped()


@pytest.fixture(scope="session")
def sentinel_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A sentinel with its Redis; the second of the two in the URL is down."""
    program = need("redis-server")
    folder = tmp_path_factory.mktemp("sentinel")
    redis_port, port = free_port(), free_port()
    redis = Server(
        [program, "--port", str(redis_port), "--bind", "127.0.0.1", "--dir", str(folder)],
        folder / "redis",
        "",
        redis_port,
    )
    redis.start()
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor main 127.0.0.1 {redis_port} "
        "1\n"
    )
    url = f"sentinel://127.0.0.1:{port};sentinel://127.0.0.1:{free_port()}"
    server = Server([program, str(settings), "--sentinel"], folder / "log", url, port)
    server.settings = {"broker_transport_options": {"master_name": "main"}}
    server.start()
    yield server
    server.ensure_stopped()
    redis.ensure_stopped()


@contextlib.contextmanager
def rabbitmq(folder: Path, url: str, port: int, listener: str) -> Iterator[Server]:
    """A running server; ``listener`` is its configuration."""
    # Debian's wrapper in the path changes the user; the script behind it does not.
    program = need("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
    epmd = need("epmd")
    mapper_port = free_port()
    mapper = Server(
        [epmd, "-port", str(mapper_port), "-address", "127.0.0.1"], folder / "epmd", "", mapper_port
    )
    mapper.start()
    (folder / "rabbitmq.conf").write_text(f"{listener}\nloopback_users = none\n")
    (folder / "plugins").write_text("[].")
    server = Server(
        [program],
        folder / "log",
        url,
        port,
        HOME=str(folder),
        ERL_EPMD_PORT=str(mapper_port),
        RABBITMQ_NODENAME=f"test{port}@localhost",
        RABBITMQ_DIST_PORT=str(free_port()),
        RABBITMQ_CONFIG_FILE=str(folder / "rabbitmq.conf"),
        RABBITMQ_ENABLED_PLUGINS_FILE=str(folder / "plugins"),
        RABBITMQ_MNESIA_BASE=str(folder / "mnesia"),
        RABBITMQ_LOG_BASE=str(folder / "logs"),
        RABBITMQ_PID_FILE=str(folder / "pid"),
    )
    server.start()
    yield server
    server.ensure_stopped()
    mapper.ensure_stopped()


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    url = f"amqp://guest:guest@127.0.0.1:{port}//"
    with rabbitmq(
        tmp_path_factory.mktemp("rabbitmq"), url, port, f"listeners.tcp.default = 127.0.0.1:{port}"
    ) as server:
        yield server


@pytest.fixture(scope="session")
def amqps_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Server]:
    """RabbitMQ over TLS alone."""
    port = free_port()
    files = {
        "cacertfile": certificates.authority,
        "certfile": certificates.certificate,
        "keyfile": certificates.key,
    }
    listener = ["listeners.tcp = none", f"listeners.ssl.default = 127.0.0.1:{port}"]
    listener += [f"ssl_options.{name} = {path}" for name, path in files.items()]
    url = f"amqps://guest:guest@localhost:{port}//"
    with rabbitmq(tmp_path_factory.mktemp("amqps"), url, port, "\n".join(listener)) as server:
        server.settings = {
            "broker_use_ssl": {"ca_certs": certificates.authority, "cert_reqs": ssl.CERT_REQUIRED}
        }
        yield server


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Server:
    """The server that the test is parametrized with, Redis unless it says otherwise; running, and
    empty of old tasks."""
    server: Server = request.getfixturevalue(f"{getattr(request, 'param', 'redis')}_server")
    if server.process is None or server.process.poll() is not None:
        server.start()
    return server


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Exporter(Program):
    """``celery-memory-exporter serve`` as a process."""

    def __init__(
        self, log: Path, broker_url: str | None, *options: str, port: int | None = None
    ) -> None:
        self.port = port or free_port()
        command = [sys.executable, "-m", "celery_memory_exporter.cli", "serve"]
        command += ["--listen-address", f"127.0.0.1:{self.port}", *options]
        super().__init__(
            command, log, **({"CELERY_MEMORY_BROKER_URL": broker_url} if broker_url else {})
        )

    def start(self) -> None:
        super().start()
        wait_for(lambda: answers(self.port), "the exporter")

    def text_of(self, path: str = "/metrics") -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            text: str = response.read().decode()
            return text

    def ready(self) -> bool:
        with contextlib.suppress(urllib.request.HTTPError):
            return "is ready" in self.text_of("/-/ready")
        return False

    def samples(self) -> Samples:
        families = text_string_to_metric_families(self.text_of())
        return {
            (each.name, frozenset(each.labels.items())): each.value
            for family in families
            for each in family.samples
        }

    def value(self, family: str, /, **labels: str) -> float | None:
        """The sum of the samples with these labels; ``None`` when there is none."""
        wanted = set(labels.items())
        values = [
            value
            for (each, has), value in self.samples().items()
            if each == family and wanted <= has
        ]
        return sum(values) if values else None

    def by_label(self, family: str, label: str, /, **labels: str) -> dict[str, float]:
        wanted = set(labels.items())
        samples = self.samples().items()
        return {
            dict(has)[label]: value
            for (each, has), value in samples
            if each == family and wanted <= has
        }


class Worker(Program):
    """``celery worker`` on the tests' application, with the agent unless it says otherwise."""

    def __init__(
        self,
        log: Path,
        broker: Server,
        name: str,
        *options: str,
        agent: bool = True,
        **environment: str,
    ) -> None:
        self.nodename = f"{name}@localhost"
        self.queue = name
        application = (
            "tests.integration.configured" if broker.settings else "tests.integration.tasks"
        )
        command = [sys.executable, "-W", "ignore", "-m", "celery", "-A", application, "worker"]
        command += ["-n", self.nodename, "-Q", self.queue, "-l", "INFO", *options]
        command += ["-I", "celery_memory_exporter.autoload"] if agent else []
        settings = {
            "TEST_BROKER_URL": broker.url,
            "CELERY_MEMORY_INTERVAL_SECONDS": str(INTERVAL),
            "C_FORCE_ROOT": "1",
        }
        settings["TEST_BROKER_SETTINGS"] = json.dumps(broker.settings)
        super().__init__(command, log, **{**settings, **environment})

    def start(self) -> None:
        super().start()
        try:
            wait_for(lambda: " ready." in self.text, f"{self.nodename} to be ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text[-4000:]}") from None


class Stage:
    """What a test has at hand; all of it ends with the test."""

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
        number = len(self._programs)
        exporter = Exporter(
            self.folder / f"exporter{number}.log",
            self.broker.url if broker else None,
            *options,
            port=port,
        )
        self._run(exporter)
        if ready:
            wait_for(exporter.ready, "the exporter to be ready")
        return exporter

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
        for program in reversed(self._programs):
            program.ensure_stopped()


@pytest.fixture
def stage(tmp_path: Path, broker: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("TEST_BROKER_URL", broker.url)
    from tests.integration import tasks

    stage = Stage(tmp_path, broker, tasks)
    yield stage
    stage.end()
