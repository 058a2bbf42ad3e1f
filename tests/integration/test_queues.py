"""Queues, read from real brokers, and brokers as their users have them: over TLS, behind a
sentinel."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from celery import Celery

from celery_memory_exporter.config.settings import Broker, Tls
from celery_memory_exporter.sources.broker import connect, explain
from celery_memory_exporter.sources.queue_reader import QueueReader
from tests.integration.conftest import Certificates, Exporter, Server, Stage, wait_for
from tests.integration.test_agent import name_of, wait_for_runs

pytestmark = pytest.mark.integration
BOTH = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
SECURE = pytest.mark.parametrize("broker", ["rediss", "sentinel", "amqps"], indirect=True)
NUMBER = itertools.count(1)


def queue_name() -> str:
    return f"queue{next(NUMBER)}"


def client(server: Server, **settings: Any) -> Celery:
    """An application that only sends."""
    app = Celery("client", broker=server.url, set_as_current=False)
    app.conf.update(server.settings, **settings)
    return app


def exporter_for(stage: Stage, *queues: str, **broker: Any) -> Exporter:
    path = stage.folder / "config.yaml"
    settings = {
        "broker": {"url": stage.broker.url, "queues": list(queues), **broker},
        "queues": {"interval_seconds": 1},
    }
    path.write_text(yaml.safe_dump(settings))
    return stage.exporter("--config", str(path), broker=False)


def length(exporter: Exporter, queue: str) -> float | None:
    return exporter.value("celery_queue_length", queue_name=queue)


def source_up(exporter: Exporter) -> float | None:
    return exporter.value("celery_memory_exporter_source_up", source="queues")


# --- length -------------------------------------------------------------------------------------


def send_with_priorities(app: Celery, queue: str) -> None:
    for priority in (0, 3, 6, 9, 9):
        app.send_task("nobody.runs.this", queue=queue, priority=priority)


def test_priorities_are_summed_and_told_apart(stage: Stage) -> None:
    queue, plain = queue_name(), queue_name()
    send_with_priorities(client(stage.broker), queue)
    exporter = exporter_for(stage, queue, plain)
    wait_for(lambda: length(exporter, queue) == 5, "the sum")
    by_priority = exporter.by_label("celery_queue_length_by_priority", "priority", queue_name=queue)
    assert by_priority == {"0": 1, "3": 1, "6": 1, "9": 2}
    assert length(exporter, plain) == 0


def test_a_prefix_and_steps_of_ones_own(stage: Stage) -> None:
    queue = queue_name()
    options = {"global_keyprefix": "ours:", "priority_steps": [0, 5], "sep": ":"}
    send_with_priorities(client(stage.broker, broker_transport_options=options), queue)
    exporter = exporter_for(stage, queue, transport_options=options)
    wait_for(lambda: length(exporter, queue) == 5, "the sum")
    assert exporter.by_label("celery_queue_length_by_priority", "priority", queue_name=queue) == {
        "0": 2,
        "5": 3,
    }
    assert exporter.value(
        "celery_queue_oldest_task_age_seconds", queue_name=queue
    ) is not None or wait_for(
        lambda: exporter.value("celery_queue_oldest_task_age_seconds", queue_name=queue),
        "the head to have been seen twice",
    )


@BOTH
def test_messages_consumers_workers_and_processes(stage: Stage) -> None:
    """Of a worker with an agent and of one without, which is asked."""
    absent = queue_name()
    exporter = exporter_for(stage, absent)
    workers = stage.worker("-c", "2"), stage.worker("-c", "3", agent=False)
    for worker, processes in zip(workers, (2, 3), strict=True):
        for family, count in [
            ("celery_queue_length", 0),
            ("celery_active_worker_count", 1),
            ("celery_active_process_count", processes),
        ]:
            wait_for(
                lambda family=family, count=count, worker=worker: (
                    exporter.value(family, queue_name=worker.queue) == count
                ),
                f"{family} of {worker.queue} to be {count}",
            )
    amqp = stage.broker.url.startswith("amqp")
    assert exporter.value("celery_active_consumer_count", queue_name=workers[0].queue) == (
        1 if amqp else None
    )
    assert length(exporter, absent) == 0
    assert exporter.value("celery_active_consumer_count", queue_name=absent) == (
        0 if amqp else None
    )
    assert source_up(exporter) == 1
    assert workers[0].stop() == 0
    stage.send(workers[0], "noop", times=3)
    wait_for(lambda: length(exporter, workers[0].queue) == 3, "what nobody consumes")


# --- the oldest task ----------------------------------------------------------------------------


def oldest(exporter: Exporter, queue: str) -> float | None:
    return exporter.value("celery_queue_oldest_task_age_seconds", queue_name=queue)


def test_the_oldest_tasks_age_by_its_own_time(stage: Stage) -> None:
    queue = queue_name()
    headers = {"sentry-task-enqueued-time": str(time.time() - 1000)}
    client(stage.broker).send_task("nobody.runs.this", queue=queue, headers=headers)
    exporter = exporter_for(stage, queue)
    wait_for(lambda: (oldest(exporter, queue) or 0) >= 1000, "the age that the message tells")


def test_the_oldest_tasks_age_by_its_clients_event(stage: Stage) -> None:
    queue = queue_name()
    exporter = exporter_for(stage, queue)
    app = client(stage.broker, task_send_sent_event=True)
    client(stage.broker).send_task("nobody.tells.of.this", queue=queue)
    sent = time.time()
    app.send_task("nobody.runs.this", queue=queue)
    wait_for(
        lambda: exporter.value("celery_task_sent_total", name="nobody.runs.this") == 1, "the event"
    )
    wait_for(lambda: length(exporter, queue) == 2, "both tasks")
    with app.connection_for_write() as connection, connection.channel() as channel:
        assert channel.client.rpop(queue) is not None
    ages = wait_for(
        lambda: (
            (samples := exporter.samples())
            and _value(samples, "celery_queue_length", queue) == 1
            and samples
        ),
        "the second task to be the head",
    )
    age = _value(ages, "celery_queue_oldest_task_age_seconds", queue)
    assert age is not None, "known at first sight, because the client told"
    assert age <= time.time() - sent


def _value(samples: Any, family: str, queue: str) -> float | None:
    return next(
        (
            value
            for (name, labels), value in samples.items()
            if name == family and ("queue_name", queue) in labels
        ),
        None,
    )


# --- a broker that is not there -----------------------------------------------------------------


@BOTH
def test_queues_that_cannot_be_read_are_absent_and_come_back(stage: Stage) -> None:
    queue = queue_name()
    exporter = exporter_for(stage, queue)
    wait_for(lambda: length(exporter, queue) == 0, "the queue")
    stage.broker.stop()
    wait_for(lambda: source_up(exporter) == 0, "the poll to fail")
    assert length(exporter, queue) is None
    assert "queues cannot be read: broker " in exporter.text
    stage.broker.start()
    wait_for(lambda: source_up(exporter) == 1, "the poll to work again")
    assert length(exporter, queue) == 0
    assert exporter.text.count("queues cannot be read") == 1


@BOTH
def test_a_queue_that_cannot_be_read_hides_only_itself(broker: Server) -> None:
    """A key of another kind in Redis, somebody's exclusive queue in RabbitMQ."""
    queue = queue_name()
    with broker.connection() as connection, connection.channel() as channel:
        if connection.transport.driver_type == "redis":
            channel.client.set(queue, "no list")
        else:
            channel.queue_declare(queue, exclusive=True)
        with contextlib.closing(QueueReader(Broker(url=broker.url), heads=True)) as reader:
            for _ in range(2):
                answers = reader.read(["before", queue, "after"])
                assert set(answers.queues) == {"before", "after"}
                assert re.search("WRONGTYPE|RESOURCE_LOCKED", str(answers.trouble))


@BOTH
def test_a_broker_that_falls_silent_is_given_up(broker: Server) -> None:
    """py-amqp would wait for ever."""
    reader = QueueReader(Broker(url=broker.url), heads=True)
    processes = [psutil.Process(broker.pid), *psutil.Process(broker.pid).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        with pytest.raises(Exception, match=r"(?i)time"):
            reader.read(["q"])
    finally:
        for process in processes:
            process.resume()
    reader.close()
    with contextlib.closing(QueueReader(Broker(url=broker.url), heads=True)) as anew:
        assert set(anew.read(["q"]).queues) == {"q"}


# --- TLS and sentinels --------------------------------------------------------------------------


def broker_settings(server: Server, certificates: Certificates) -> dict[str, Any]:
    files = {
        "ca_file": certificates.authority,
        "cert_file": certificates.certificate,
        "key_file": certificates.key,
    }
    secure = server.url.startswith(("rediss", "amqps"))
    return {
        "tls": files if secure else {},
        "transport_options": server.settings.get("broker_transport_options", {}),
    }


@SECURE
def test_reports_and_queues_over_it(stage: Stage, certificates: Certificates) -> None:
    exporter = exporter_for(stage, **broker_settings(stage.broker, certificates))
    worker, bare = stage.worker("-c", "2"), stage.worker("-c", "1", agent=False)
    stage.send(worker, "noop", times=20)
    wait_for_runs(exporter, worker, "noop", 20)
    assert (
        exporter.value("celery_task_succeeded_total", worker=worker.nodename, name=name_of("noop"))
        == 20
    )
    wait_for(lambda: length(exporter, worker.queue) == 0, "the queue")
    wait_for(
        lambda: exporter.value("celery_active_process_count", queue_name=bare.queue) == 1,
        "the answer of the bare worker",
    )
    assert source_up(exporter) == 1


def trouble(url: str, settings: Broker) -> str:
    try:
        connect(settings, url).release()
    except Exception as error:
        return explain(error, url)
    raise AssertionError(f"{url} could be connected to")


def tls(certificates: Certificates, **changes: Any) -> Broker:
    files = {
        "ca_file": certificates.authority,
        "cert_file": certificates.certificate,
        "key_file": certificates.key,
    }
    return Broker(tls=Tls(**{**files, **changes}))


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
    path = tmp_path / "config.yaml"
    files = {
        "ca_file": str(authority),
        "cert_file": certificates.certificate,
        "key_file": certificates.key,
    }
    path.write_text(
        yaml.safe_dump(
            {"broker": {"url": stage.broker.url, "tls": files}, "queues": {"interval_seconds": 1}}
        )
    )
    exporter = stage.exporter("--config", str(path), broker=False, ready=False)
    missing = f"broker.tls.ca_file: {authority} cannot be read: No such file or directory"
    wait_for(lambda: exporter.text.count(missing) >= 2, "both sources to say so")
    authority.write_text(Path(certificates.stranger).read_text())
    wait_for(
        lambda: "check that broker.tls.ca_file is the authority" in exporter.text,
        "the wrong authority to be refused",
    )
    assert not exporter.ready()
    authority.write_text(Path(certificates.authority).read_text())
    wait_for(exporter.ready, "the exporter to be connected")
