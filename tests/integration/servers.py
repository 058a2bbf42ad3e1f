"""Brokers as their users have them: Redis and RabbitMQ, over TLS, behind a sentinel."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kombu import Connection

from tests.integration.programs import LOOPBACK, Program, answers, free_port, need


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
        self.wait_until_up(
            lambda: answers(self.port), f"{self.command[0]} to listen on port {self.port}"
        )


@dataclass(frozen=True)
class Certificates:
    """Files. One certificate is for server and client alike, and for ``localhost`` and
    127.0.0.1."""

    authority: str
    certificate: str
    key: str
    #: Another authority, which has signed nothing here.
    stranger: str


def make_certificates(folder: Path) -> Certificates:
    program = need("openssl")
    (folder / "names").write_text("subjectAltName = DNS:localhost, IP:127.0.0.1")
    new = "req -newkey rsa:2048 -nodes"
    for arguments in (
        f"{new} -x509 -subj /CN=authority -keyout authority.key -out authority.pem",
        f"{new} -x509 -subj /CN=stranger -keyout stranger.key -out stranger.pem",
        f"{new} -subj /CN=localhost -keyout key.pem -out request.pem",
        "x509 -req -in request.pem -CA authority.pem -CAkey authority.key -set_serial 1 "
        "-extfile names -out certificate.pem",
    ):
        subprocess.run([program, *arguments.split()], cwd=folder, check=True, capture_output=True)
    return Certificates(
        *(
            str(folder / name)
            for name in ("authority.pem", "certificate.pem", "key.pem", "stranger.pem")
        )
    )


# --- Redis --------------------------------------------------------------------------------------


def redis(folder: Path, *options: str) -> Server:
    port = free_port()
    command = [need("redis-server"), "--port", str(port), "--bind", LOOPBACK]
    command += ["--dir", str(folder), *options]
    return Server(command, folder / "redis.log", f"redis://{LOOPBACK}:{port}/0", port)


def redis_over_tls(folder: Path, certificates: Certificates) -> Server:
    """TLS alone, and it asks its clients for a certificate. Its second address is not in its
    own."""
    port = free_port()
    command = [need("redis-server"), "--port", "0", "--tls-port", str(port)]
    command += ["--bind", LOOPBACK, "127.0.0.2", "--dir", str(folder)]
    command += ["--tls-cert-file", certificates.certificate, "--tls-key-file", certificates.key]
    command += ["--tls-ca-cert-file", certificates.authority]
    server = Server(command, folder / "redis.log", f"rediss://{LOOPBACK}:{port}/0", port)
    server.settings["broker_use_ssl"] = {
        "ssl_cert_reqs": "required",
        "ssl_ca_certs": certificates.authority,
        "ssl_certfile": certificates.certificate,
        "ssl_keyfile": certificates.key,
    }
    return server


def sentinel_of(redis_server: Server, folder: Path) -> Server:
    """The second of the two in the URL is down."""
    port = free_port()
    settings = folder / "sentinel.conf"
    lines = [f"port {port}", f"bind {LOOPBACK}", f"dir {folder}"]
    lines.append(f"sentinel monitor main {LOOPBACK} {redis_server.port} 1")
    settings.write_text("".join(f"{line}\n" for line in lines))
    url = f"sentinel://{LOOPBACK}:{port};sentinel://{LOOPBACK}:{free_port()}"
    command = [need("redis-server"), str(settings), "--sentinel"]
    server = Server(command, folder / "sentinel.log", url, port)
    server.settings["broker_transport_options"] = {"master_name": "main"}
    return server


# --- RabbitMQ -----------------------------------------------------------------------------------


@contextlib.contextmanager
def rabbitmq(folder: Path, url: str, port: int, listener: str) -> Iterator[Server]:
    """A running server; ``listener`` is its configuration."""
    # Debian's wrapper in the path changes the user; the script behind it does not.
    program = need("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
    (folder / "rabbitmq.conf").write_text(f"{listener}\nloopback_users = none\n")
    (folder / "plugins").write_text("[].")
    with _port_mapper(folder) as mapper_port:
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
        with running(server):
            yield server


@contextlib.contextmanager
def _port_mapper(folder: Path) -> Iterator[int]:
    """Erlang's own, on a port of ours."""
    port = free_port()
    command = [need("epmd"), "-port", str(port), "-address", LOOPBACK]
    with running(Server(command, folder / "epmd", "", port)):
        yield port


def plain_listener(port: int) -> str:
    return f"listeners.tcp.default = {LOOPBACK}:{port}"


def tls_listener(port: int, certificates: Certificates) -> str:
    """TLS alone."""
    return "\n".join(
        [
            "listeners.tcp = none",
            f"listeners.ssl.default = {LOOPBACK}:{port}",
            f"ssl_options.cacertfile = {certificates.authority}",
            f"ssl_options.certfile = {certificates.certificate}",
            f"ssl_options.keyfile = {certificates.key}",
        ]
    )


def amqps_settings(certificates: Certificates) -> dict[str, Any]:
    return {"broker_use_ssl": {"ca_certs": certificates.authority, "cert_reqs": ssl.CERT_REQUIRED}}


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    """Also where it did not come up, it is ended."""
    try:
        server.start()
        yield server
    finally:
        server.ensure_stopped()
