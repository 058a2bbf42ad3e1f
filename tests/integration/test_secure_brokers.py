"""Brokers as their users have them: over TLS, behind a sentinel."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from celery_memory_exporter.config.settings import Broker, Tls
from celery_memory_exporter.sources.broker import connect, explain
from tests.integration.figures import wait_for_runs, wait_for_value
from tests.integration.servers import Certificates, Server
from tests.integration.stage import Stage
from tests.integration.waiting import at_least, contains, wait_for

pytestmark = pytest.mark.integration
BOTH = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
SECURE = pytest.mark.parametrize("broker", ["rediss", "sentinel", "amqps"], indirect=True)
QUICK = {"queues": {"interval_seconds": 1}}


def files(certificates: Certificates) -> dict[str, str]:
    """Under the names of the configuration."""
    return {
        "ca_file": certificates.authority,
        "cert_file": certificates.certificate,
        "key_file": certificates.key,
    }


def broker_settings(server: Server, certificates: Certificates) -> dict[str, Any]:
    secure = server.url.startswith(("rediss", "amqps"))
    return {
        "url": server.url,
        "tls": files(certificates) if secure else {},
        "transport_options": server.settings.get("broker_transport_options", {}),
    }


@SECURE
def test_reports_and_queues_over_it(stage: Stage, certificates: Certificates) -> None:
    exporter = stage.configured(broker=broker_settings(stage.broker, certificates), **QUICK)
    worker, bare = stage.worker("-c", "2"), stage.worker("-c", "1", agent=False)
    stage.send(worker, "noop", times=20)
    wait_for_runs(exporter, worker, "noop", 20)
    wait_for_value(exporter, 0, "celery_queue_length", queue_name=worker.queue)
    # The answer of the bare worker.
    wait_for_value(exporter, 1, "celery_active_process_count", queue_name=bare.queue)
    wait_for_value(exporter, 1, "celery_memory_exporter_source_up", source="queues")


def trouble(url: str, settings: Broker) -> str:
    try:
        connect(settings, url).release()
    except Exception as error:
        return explain(error, url)
    raise AssertionError(f"{url} could be connected to")


def tls(certificates: Certificates, **changes: Any) -> Broker:
    return Broker(tls=Tls(**{**files(certificates), **changes}))


@pytest.mark.parametrize("broker", ["rediss", "amqps"], indirect=True)
def test_what_is_said_when_tls_fails(broker: Server, certificates: Certificates) -> None:
    url = broker.url
    good = tls(certificates)
    connect(good, url).release()
    assert "check that broker.tls.ca_file is the authority" in trouble(
        url, tls(certificates, ca_file=certificates.stranger)
    )
    assert "check that broker.tls.ca_file is the authority" in trouble(
        url, tls(certificates, ca_file=None)
    )
    plain = url.replace("rediss", "redis").replace("amqps", "amqp")
    assert "where it speaks TLS, use rediss:// or amqps://" in trouble(plain, Broker())
    connect(
        dataclasses.replace(good, tls=dataclasses.replace(good.tls, enabled=True)), plain
    ).release()
    connect(tls(certificates, ca_file=None, verify=False), url).release()


@BOTH
def test_tls_with_a_plain_broker(broker: Server) -> None:
    url = broker.url.replace("redis://", "rediss://").replace("amqp://", "amqps://")
    # Redis waits for the end of a line.
    silent = "a Redis without TLS says nothing when it is spoken to with TLS"
    assert (
        silent if url.startswith("rediss") else "the broker does not speak TLS there"
    ) in trouble(url, Broker())


def test_a_certificate_for_another_name_is_refused(
    rediss_server: Server, certificates: Certificates
) -> None:
    other = rediss_server.url.replace("127.0.0.1", "127.0.0.2")
    assert "certificate is for another name" in trouble(other, tls(certificates))


def test_an_amqp_certificate_for_another_name_is_refused(
    amqps_server: Server, certificates: Certificates
) -> None:
    """The loopback address in other letters, which the certificate does not name."""
    other = amqps_server.url.replace("localhost", "127.1")
    assert "certificate is for another name" in trouble(other, tls(certificates))


def test_a_client_without_the_certificate_that_is_asked_for(
    rediss_server: Server, certificates: Certificates
) -> None:
    bare = tls(certificates, cert_file=None, key_file=None)
    # Its alert, or that it has hung up: whichever is seen first.
    assert "wants a client's certificate" in trouble(rediss_server.url, bare)


def test_the_urls_own_tls_options_come_first_and_ours_fill_up(
    rediss_server: Server, certificates: Certificates
) -> None:
    """As Celery's documentation writes URLs; kombu alone then forgets the file of authorities."""
    connect(tls(certificates), f"{rediss_server.url}?ssl_cert_reqs=required").release()
    other = rediss_server.url.replace("127.0.0.1", "127.0.0.2")
    connect(tls(certificates), f"{other}?ssl_check_hostname=false").release()


def test_a_sentinel_that_is_down_is_passed_over(sentinel_server: Server) -> None:
    live, down = sentinel_server.url.split(";")
    settings = Broker(transport_options={"master_name": "main"})
    with connect(settings, f"{down};{live}") as connection, connection.channel() as channel:
        assert channel.client.ping()


def test_a_sentinel_that_nobody_told_the_masters_name(sentinel_server: Server) -> None:
    assert "set broker.transport_options.master_name" in trouble(sentinel_server.url, Broker())
    unknown = Broker(transport_options={"master_name": "other"})
    assert "broker.transport_options.master_name" in trouble(sentinel_server.url, unknown)


@pytest.mark.parametrize("broker", ["rediss"], indirect=True)
def test_the_exporter_says_what_is_wrong_and_goes_on_trying(
    stage: Stage, certificates: Certificates, tmp_path: Path
) -> None:
    authority = tmp_path / "authority.pem"
    settings = {**files(certificates), "ca_file": str(authority)}
    exporter = stage.configured(
        broker={"url": stage.broker.url, "tls": settings}, ready=False, **QUICK
    )
    missing = f"broker.tls.ca_file: {authority} cannot be read: No such file or directory"
    wait_for(lambda: exporter.text.count(missing), "both sources to say so", at_least(2))
    authority.write_text(Path(certificates.stranger).read_text())
    wait_for(
        lambda: exporter.text,
        "the wrong authority to be refused",
        contains("check that broker.tls.ca_file is the authority"),
    )
    assert not exporter.ready()
    authority.write_text(Path(certificates.authority).read_text())
    exporter.wait_until_ready()
