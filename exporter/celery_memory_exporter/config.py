"""Strict YAML -> frozen settings. What is not known is refused, with file, key path, what was found and what is allowed.

Precedence: command line, then environment (``CELERY_MEMORY_…``, for the common few), then the file, then the
defaults, which are this module's values and ``config.example.yaml``'s alike (a test says so).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from celery_memory_exporter.checks import (
    Check,
    address,
    boolean,
    buckets,
    integer,
    kombu_url,
    log_level,
    mapping,
    names,
    number,
    optional_text,
    pattern,
    text,
    text_or_empty,
)
from celery_memory_exporter.common.traffic import QUEUE_WAIT_SECONDS, RUNTIME_SECONDS
from celery_memory_exporter.common.urls import safe_url
from celery_memory_exporter.fleet.limits import Limits


class ConfigError(ValueError):
    """One line for the user: where, what was found, what is allowed."""


def option(default: Any, check: Check, *, secret: bool = False) -> Any:
    """A key with its default and its check. A secret's value never shows in a message."""
    factory: dict[str, Any] = {"default_factory": lambda: dict(default)} if isinstance(default, dict) else {"default": default}
    return dataclasses.field(**factory, metadata={"check": check, "secret": secret})


def sections(cls: type) -> Any:
    """A list of mappings with the keys of ``cls``."""
    return dataclasses.field(default=(), metadata={"section": cls})


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS with a broker whose URL asks for it (``rediss://``, ``amqps://``), or that ``enabled`` says so of."""

    enabled: bool = option(False, boolean)
    ca_file: str | None = option(None, optional_text)
    cert_file: str | None = option(None, optional_text)
    key_file: str | None = option(None, optional_text)
    #: Whether the server's certificate must be valid; ``false`` is for tests.
    verify: bool = option(True, boolean)


@dataclass(frozen=True, slots=True)
class Broker:
    """The workers' broker. ``events_url`` where it has no fanout (SQS): what the workers' ``CELERY_MEMORY_EVENTS_URL`` says."""

    #: The value of the label ``broker``, where there is more than one.
    name: str = option("", text_or_empty)
    url: str | None = option(None, kombu_url, secret=True)
    events_url: str | None = option(None, kombu_url, secret=True)
    tls: Tls = dataclasses.field(default_factory=Tls)
    transport_options: dict[str, Any] = option({}, mapping)
    event_exchange: str = option("celeryev", text)
    control_exchange: str = option("celery", text)
    #: Whether to count tasks of workers without an agent, from their events (``-E``), and what clients send.
    task_events: bool = option(True, boolean)
    #: Queues to watch beside those that workers consume.
    queues: tuple[str, ...] = option((), names)
    reconnect_max_seconds: float = option(30.0, number(1, 3600))

    def __repr__(self) -> str:
        """Without the URLs, which may hold a password."""
        return f"Broker(name={self.name!r}, url={'…' if self.url else None}, event_exchange={self.event_exchange!r})"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where ``/metrics`` answers."""

    address: str = option(":9808", address)


@dataclass(frozen=True, slots=True)
class Processes:
    """The local process table as a source."""

    enabled: bool = option(True, boolean)
    interval_seconds: float = option(5.0, number(0.5, 300))
    shared_memory_interval_seconds: float = option(60.0, number(5, 86_400))
    shared_memory_max_rss_bytes: int = option(4 * 1024**3, integer(0, 2**50))


@dataclass(frozen=True, slots=True)
class Queues:
    """Queues as a source, polled in the background."""

    enabled: bool = option(True, boolean)
    interval_seconds: float = option(15.0, number(1, 3600))
    #: Between two questions to workers without an agent (``inspect``): what they consume, and with how many processes.
    inspect_interval_seconds: float = option(60.0, number(5, 86_400))
    #: ``queue_name`` where nothing tells it; Celery's ``task_default_queue``.
    default_name: str = option("celery", text)
    #: Look at the oldest message of each queue in Redis, for its age.
    oldest_task: bool = option(True, boolean)


@dataclass(frozen=True, slots=True)
class Labels:
    """Which label values are told apart."""

    #: Whether ``celery_task_sent_total`` has the sender's hostname; ``generic`` otherwise.
    senders: bool = option(False, boolean)


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """Workers whose nodename matches are shown as one, named ``name`` (with groups as in ``re.sub``)."""

    match: re.Pattern[str] = option(None, pattern)
    name: str = option(None, text)


@dataclass(frozen=True, slots=True)
class Buckets:
    """Upper bounds of histograms that are made here, of workers without an agent."""

    runtime_seconds: tuple[float, ...] = option(tuple(RUNTIME_SECONDS), buckets)
    queue_wait_seconds: tuple[float, ...] = option(tuple(QUEUE_WAIT_SECONDS), buckets)


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds of what is shown, see ``bounds.Limits``."""

    workers: int = option(1_000, integer(1, 100_000))
    tasks_per_worker: int = option(200, integer(1, 10_000))
    object_types_per_worker: int = option(20, integer(0, 1_000))
    exceptions_per_task: int = option(50, integer(1, 1_000))
    queues: int = option(200, integer(0, 10_000))
    senders: int = option(100, integer(1, 10_000))
    #: Tasks that have been sent or received, and not finished: of workers without an agent.
    tasks_in_flight: int = option(50_000, integer(100, 10_000_000))
    label_length: int = option(120, integer(16, 1_000))

    def limits(self) -> Limits:
        return Limits(
            workers=self.workers,
            tasks=self.tasks_per_worker,
            object_types=self.object_types_per_worker,
            exceptions=self.exceptions_per_task,
            queues=self.queues,
            senders=self.senders,
            tasks_in_flight=self.tasks_in_flight,
            label_length=self.label_length,
        )


@dataclass(frozen=True, slots=True)
class Log:
    """What is told on standard error."""

    level: str = option("info", log_level)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of ``celery-memory-exporter serve``."""

    broker: Broker = dataclasses.field(default_factory=Broker)
    listen: Listen = dataclasses.field(default_factory=Listen)
    #: Instead of ``broker``, where there are several.
    brokers: tuple[Broker, ...] = sections(Broker)
    processes: Processes = dataclasses.field(default_factory=Processes)
    queues: Queues = dataclasses.field(default_factory=Queues)
    labels: Labels = dataclasses.field(default_factory=Labels)
    worker_groups: tuple[WorkerGroup, ...] = sections(WorkerGroup)
    buckets: Buckets = dataclasses.field(default_factory=Buckets)
    limits: Caps = dataclasses.field(default_factory=Caps)
    log: Log = dataclasses.field(default_factory=Log)
    expire_after_seconds: float = option(600.0, number(10, 86_400))
    heartbeat_timeout_seconds: float = option(300.0, number(5, 86_400))

    def all_brokers(self) -> tuple[Broker, ...]:
        """Those with a URL."""
        return self.brokers or ((self.broker,) if self.broker.url else ())


#: What may be set without a file: key path by environment variable.
ENVIRONMENT = {
    "CELERY_MEMORY_BROKER_URL": "broker.url",
    "CELERY_MEMORY_EVENTS_URL": "broker.events_url",
    "CELERY_MEMORY_LISTEN_ADDRESS": "listen.address",
    "CELERY_MEMORY_LOG_LEVEL": "log.level",
}

T = TypeVar("T")


class _UniqueKeys(yaml.SafeLoader):
    """YAML allows a key twice and keeps the last: a setting that silently does not hold."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: Path | None, overrides: Mapping[str, tuple[str, str]]) -> Config:
    """The file's settings (or the defaults) with ``overrides``: ``{key path: (value, where it comes from)}``.

    Raises ``ConfigError`` for a file that cannot be read, is no YAML, or says something that is not allowed.
    """
    raw = {} if path is None else _parse(path)
    config = _read(Config, raw, "", str(path) if path else "defaults")
    for key, (value, source) in overrides.items():
        section_name, _, name = key.partition(".")
        section = getattr(config, section_name)
        field = {field.name: field for field in dataclasses.fields(section)}[name]
        changed = dataclasses.replace(section, **{name: _checked(field, value, source)})
        config = dataclasses.replace(config, **{section_name: changed})
    _check_brokers(config, str(path))
    return config


def _check_brokers(config: Config, source: str) -> None:
    """What one key alone does not say."""
    if config.brokers and config.broker.url:
        raise ConfigError(f"{source}: brokers: given beside broker.url (or --broker-url); allowed is one of them")
    names = [broker.name for broker in config.brokers]
    if any(not name for name in names) or len(set(names)) < len(names):
        raise ConfigError(f"{source}: brokers: found the names {names}, allowed are different ones, one for each")
    if any(broker.url is None for broker in config.brokers):
        raise ConfigError(f"{source}: brokers: each needs a url")
    if any(None in (group.match, group.name) for group in config.worker_groups):
        raise ConfigError(f"{source}: worker_groups: each needs match and name")


def _parse(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 text") from error
    except yaml.YAMLError as error:
        # Without the snippet that the error itself shows: it may hold a password.
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise ConfigError(f"{where}: is no valid YAML: {getattr(error, 'problem', None) or 'unreadable'}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: found {type(raw).__name__} at the top, allowed is a mapping of sections")
    return raw


def _read(cls: type[T], raw: dict[str, Any], path: str, source: str) -> T:
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass here
    values: dict[str, Any] = {}
    for key, value in raw.items():
        where = f"{source}: {path}{key}"
        if key not in fields:
            shown = f"{source}: {path}{safe_url(str(key))[:60]}"
            raise ConfigError(f"{shown}: unknown key; allowed here: {', '.join(sorted(fields))}")
        if "check" in fields[key].metadata:
            values[key] = _checked(fields[key], value, where)
        elif "section" in fields[key].metadata:
            values[key] = _read_list(fields[key].metadata["section"], value, f"{path}{key}", source)
        elif value is None:
            continue  # a section whose keys are all commented out
        elif isinstance(value, dict):
            values[key] = _read(fields[key].default_factory, value, f"{path}{key}.", source)  # type: ignore[arg-type]
        else:
            raise ConfigError(f"{where}: found {type(value).__name__}, allowed is a mapping with {', '.join(keys_of(fields[key]))}")
    return cls(**values)


def _read_list(cls: type[T], raw: Any, path: str, source: str) -> tuple[T, ...]:
    if not isinstance(raw, list) or not all(isinstance(each, dict) for each in raw):
        raise ConfigError(f"{source}: {path}: found {type(raw).__name__}, allowed is a list of mappings")
    return tuple(_read(cls, each, f"{path}[{index}].", source) for index, each in enumerate(raw))


def keys_of(section: dataclasses.Field[Any]) -> list[str]:
    return sorted(field.name for field in dataclasses.fields(section.default_factory))  # type: ignore[arg-type]


def _checked(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    try:
        return field.metadata["check"](value)
    except ValueError as error:
        found = "a value that is not shown here" if field.metadata["secret"] else _shown(value)
        raise ConfigError(f"{where}: found {found}, allowed is {error}") from error


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"
