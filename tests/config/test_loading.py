"""Strict configuration: each mistake has its message."""

from __future__ import annotations

from pathlib import Path

import pytest

from celery_memory_exporter.config.loading import ConfigError, load
from celery_memory_exporter.config.settings import Config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "broker_: {}",
            "broker_: unknown key; allowed here: broker, brokers, buckets, expire_after_seconds, ",
        ),
        (
            "broker: {uri: x}",
            "broker.uri: unknown key; allowed here: control_exchange, event_exchange, events_url, "
            "name, queues, ",
        ),
        (
            "broker: redis://:s3cret@h",
            "broker: found str, allowed is a mapping with control_exchange, event_exchange, ",
        ),
        ("redis://:s3cret@h: 1", "redis://:**@h: unknown key; allowed here: broker, "),
        (
            "broker: {url: 'not a url'}",
            "broker.url: found a value that is not shown here, allowed is a kombu URL such as "
            "redis://",
        ),
        (
            "broker: {transport_options: [1]}",
            "broker.transport_options: found list '[1]', allowed is a mapping of option names to "
            "values",
        ),
        (
            "listen: {address: 9808}",
            "listen.address: found int '9808', allowed is host:port, [IPv6]:port or :port, in "
            "quotes",
        ),
        (
            "listen: {address: 'h:99999'}",
            "listen.address: found str 'h:99999', allowed is host:port, [IPv6]:port or :port, with "
            "a port",
        ),
        ("processes: {enabled: 1}", "processes.enabled: found int '1', allowed is true or false"),
        (
            "processes: {interval_seconds: 0}",
            "processes.interval_seconds: found int '0', allowed is a number between 0.5 and 300",
        ),
        (
            "processes: {interval_seconds: .nan}",
            "processes.interval_seconds: found float 'nan', "
            "allowed is a number between 0.5 and 300",
        ),
        (
            "limits: {workers: 1.5}",
            "limits.workers: found float '1.5', allowed is an integer between 1 and 100000",
        ),
        (
            "limits: {workers: true}",
            "limits.workers: found bool 'True', allowed is an integer between 1 and 100000",
        ),
        (
            "log: {level: loud}",
            "log.level: found str 'loud', allowed is one of debug, info, warning, error",
        ),
        (
            "limits: {tasks: 1}",
            "limits.tasks: unknown key; allowed here: exceptions_per_task, label_length, "
            "object_types_per_worker, queues, senders, tasks_in_flight, tasks_per_worker, workers",
        ),
        (
            "limits: 7",
            "limits: found int, allowed is a mapping with exceptions_per_task, label_length, ",
        ),
        ("brokers: {}", "brokers: found dict, allowed is a list of mappings"),
        (
            "brokers: [{name: a, uri: x}]",
            "brokers[0].uri: unknown key; allowed here: control_exchange, ",
        ),
        (
            "brokers: [{url: 'redis://a'}]",
            "brokers: found the names [''], allowed are different ones, one for each",
        ),
        (
            "brokers: [{name: a, url: 'redis://a'}, {name: a, url: 'redis://b'}]",
            "brokers: found the names ['a', 'a'], allowed are different ones, one for each",
        ),
        ("brokers: [{name: a}]", "brokers: each needs a url"),
        (
            "broker: {url: 'redis://a'}\nbrokers: [{name: b, url: 'redis://:s3cret@b'}]",
            "brokers: given beside broker.url (or --broker-url); allowed is one of them",
        ),
        ("worker_groups: [{name: x}]", "worker_groups: each needs match and name"),
        (
            "worker_groups: [{match: '(', name: x}]",
            "worker_groups[0].match: found str '(', allowed is a regular expression",
        ),
        (
            "buckets: {runtime_seconds: [1, 1]}",
            "buckets.runtime_seconds: found list '[1, 1]', allowed is a list of up to 50 ",
        ),
        (
            "buckets: {runtime_seconds: [0, 1]}",
            "buckets.runtime_seconds: found list '[0, 1]', allowed is a list of up to 50 ",
        ),
        ("broker: {queues: q}", "broker.queues: found str 'q', allowed is a list of names"),
        (
            "broker: {tls: {verify: yes please}}",
            "broker.tls.verify: found str 'yes please', allowed is true or false",
        ),
        ("- a\n- b", "found list at the top, allowed is a mapping of sections"),
    ],
)
def test_each_mistake_has_its_message(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(caught.value).startswith(f"{file}: {message}"), str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "log: {level: info}\nlog: {level: debug}",
            ":2: is no valid YAML: the key 'log' is given twice",
        ),
        ("a: [", ":1: is no valid YAML: expected the node content, but found '<stream end>'"),
        (
            "broker:\n  url: redis://:s3cret@h: 6379",
            ":2: is no valid YAML: mapping values are not allowed here",
        ),
    ],
)
def test_what_is_no_yaml_is_told_by_its_line_without_showing_it(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert str(caught.value) == f"{file}{message}"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        load(tmp_path / "none.yaml", {})


@pytest.mark.parametrize("text", ["", "# nothing\n", "broker:\n"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert load(file, {}) == Config()


def test_an_override_wins_over_the_file_and_is_checked_with_its_own_name(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("broker: {url: 'redis://a', event_exchange: mine}")
    settings = load(file, {"broker.url": ("amqp://b", "--broker-url")})
    assert (settings.broker.url, settings.broker.event_exchange) == ("amqp://b", "mine")
    with pytest.raises(
        ConfigError, match=r"^CELERY_MEMORY_LOG_LEVEL: found str 'x', allowed is one of"
    ):
        load(file, {"log.level": ("x", "CELERY_MEMORY_LOG_LEVEL")})


def test_several_brokers_and_groups(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        "brokers: [{name: eu, url: 'redis://a'}, {name: us, url: 'amqp://b', queues: [q]}]\n"
        "worker_groups: [{match: 'celery@web-.*', name: 'celery@web'}]\n"
    )
    settings = load(file, {})
    assert [(broker.name, broker.queues) for broker in settings.all_brokers()] == [
        ("eu", ()),
        ("us", ("q",)),
    ]
    assert settings.worker_groups[0].match.fullmatch("celery@web-1")


def test_a_password_never_shows() -> None:
    settings = load(None, {"broker.url": ("redis://:hunter2@h/0", "--broker-url")})
    assert "hunter2" not in repr(settings)
    with pytest.raises(ConfigError) as caught:
        load(None, {"broker.url": ("redis:/:hunter2@h/0", "--broker-url")})
    assert "hunter2" not in str(caught.value)
