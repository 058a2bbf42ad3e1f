"""The exporter's settings: frozen values, each key with its default and the check of what it may
be.

``config.example.yaml`` shows the same defaults (a test says so). ``loading`` reads them from a
file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from celery_memory_exporter.common.traffic import QUEUE_WAIT_SECONDS, RUNTIME_SECONDS
from celery_memory_exporter.config.checks import (
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
from celery_memory_exporter.fleet.limits import Limits


def option(default: Any, check: Check, *, secret: bool = False) -> Any:
    """A key with its default and its check. A secret's value never shows in a message."""
    factory: dict[str, Any] = (
        {"default_factory": lambda: dict(default)}
        if isinstance(default, dict)
        else {"default": default}
    )
    return dataclasses.field(**factory, metadata={"check": check, "secret": secret})


def section(cls: type, checks: Mapping[str, Check]) -> Any:
    """A section whose class is not ours, with what each of its keys may be."""
    return dataclasses.field(default_factory=cls, metadata={"checks": checks})


def sections(cls: type) -> Any:
    """A list of mappings with the keys of ``cls``."""
    return dataclasses.field(default=(), metadata={"list_of": cls})


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS with a broker whose URL asks for it (``rediss://``, ``amqps://``), or that
    ``enabled`` says so of."""

    enabled: bool = option(False, boolean)
    ca_file: str | None = option(None, optional_text)
    cert_file: str | None = option(None, optional_text)
    key_file: str | None = option(None, optional_text)
    #: Whether the server's certificate must be valid; ``false`` is for tests.
    verify: bool = option(True, boolean)


@dataclass(frozen=True, slots=True)
class Broker:
    """The workers' broker. ``events_url`` where it has no fanout (SQS): what the workers'
    ``CELERY_MEMORY_EVENTS_URL`` says."""

    #: The value of the label ``broker``, where there is more than one.
    name: str = option("", text_or_empty)
    url: str | None = option(None, kombu_url, secret=True)
    events_url: str | None = option(None, kombu_url, secret=True)
    tls: Tls = dataclasses.field(default_factory=Tls)
    transport_options: dict[str, Any] = option({}, mapping)
    event_exchange: str = option("celeryev", text)
    control_exchange: str = option("celery", text)
    #: Whether to count tasks of workers without an agent, from their events (``-E``), and what
    #: clients send.
    task_events: bool = option(True, boolean)
    #: Queues to watch beside those that workers consume.
    queues: tuple[str, ...] = option((), names)
    reconnect_max_seconds: float = option(10.0, number(1, 3600))

    def __repr__(self) -> str:
        """Without the URLs, which may hold a password."""
        return (
            f"Broker(name={self.name!r}, url={'…' if self.url else None}, "
            f"event_exchange={self.event_exchange!r})"
        )


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
    #: Between two questions to workers without an agent (``inspect``): what they consume, and with
    #: how many processes.
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
    """Workers whose nodename matches are shown as one, named ``name`` (with groups as in
    ``re.sub``)."""

    match: re.Pattern[str] = option(None, pattern)
    name: str = option(None, text)


@dataclass(frozen=True, slots=True)
class Buckets:
    """Upper bounds of histograms that are made here, of workers without an agent."""

    runtime_seconds: tuple[float, ...] = option(tuple(RUNTIME_SECONDS), buckets)
    queue_wait_seconds: tuple[float, ...] = option(tuple(QUEUE_WAIT_SECONDS), buckets)


#: What each of the limits may be; their defaults and what they mean stand where they are used.
LIMITS: dict[str, Check] = {
    "workers": integer(1, 100_000),
    "tasks_per_worker": integer(1, 10_000),
    "object_types_per_worker": integer(0, 1_000),
    "exceptions_per_task": integer(1, 1_000),
    "queues": integer(0, 10_000),
    "senders": integer(1, 10_000),
    "tasks_in_flight": integer(100, 10_000_000),
    "label_length": integer(16, 1_000),
}


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
    limits: Limits = section(Limits, LIMITS)
    log: Log = dataclasses.field(default_factory=Log)
    expire_after_seconds: float = option(600.0, number(10, 86_400))
    heartbeat_timeout_seconds: float = option(300.0, number(5, 86_400))

    def all_brokers(self) -> tuple[Broker, ...]:
        """Those with a URL."""
        return self.brokers or ((self.broker,) if self.broker.url else ())
