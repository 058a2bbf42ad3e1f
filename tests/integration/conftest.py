"""Real servers, real workers, a real exporter, by tests' needs: started on free ports, ended by
their pid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import servers
from tests.integration.programs import LOOPBACK, free_port
from tests.integration.servers import Certificates, Server, running
from tests.integration.stage import Stage


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Tasks survive a restart, as they do on users' brokers; and nobody waits for a disk.
    durable = ("--appendonly", "yes", "--appendfsync", "no")
    with running(servers.redis(tmp_path_factory.mktemp("redis"), *durable)) as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return servers.make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def rediss_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("rediss")
    with running(servers.redis_over_tls(folder, certificates)) as server:
        yield server


@pytest.fixture(scope="session")
def sentinel_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A sentinel with its Redis."""
    folder = tmp_path_factory.mktemp("sentinel")
    with (
        running(servers.redis(folder)) as redis,
        running(servers.sentinel_of(redis, folder)) as sentinel,
    ):
        yield sentinel


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    folder, url = tmp_path_factory.mktemp("rabbitmq"), f"amqp://guest:guest@{LOOPBACK}:{port}//"
    with servers.rabbitmq(folder, url, port, servers.plain_listener(port)) as server:
        yield server


@pytest.fixture(scope="session")
def amqps_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Server]:
    """RabbitMQ over TLS alone."""
    port = free_port()
    folder, url = tmp_path_factory.mktemp("amqps"), f"amqps://guest:guest@localhost:{port}//"
    with servers.rabbitmq(folder, url, port, servers.tls_listener(port, certificates)) as server:
        server.settings = servers.amqps_settings(certificates)
        yield server


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Server:
    """The server that the test is parametrized with, Redis unless it says otherwise; running."""
    server: Server = request.getfixturevalue(f"{getattr(request, 'param', 'redis')}_server")
    if not server.running:
        server.start()
    return server


@pytest.fixture
def stage(tmp_path: Path, broker: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("TEST_BROKER_URL", broker.url)
    from tests.integration import tasks

    stage = Stage(tmp_path, broker, tasks)
    yield stage
    stage.end()
