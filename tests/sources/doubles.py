"""Test doubles: a fleet that remembers what it is told, a clock, and transports of kombu's."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any

from kombu import Connection
from kombu.transport import memory

from celery_memory_exporter.fleet.facts import QueueReading, WorkerFacts


class Told:
    """What a fleet is told."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.readings: list[QueueReading] | None = None
        self.sources: dict[str, bool] = {}
        self.workers: set[str] = set()
        self.facts: dict[str, WorkerFacts] = {}
        self.read = threading.Event()

    def queue_names(self, broker: str, now: float) -> list[str]:
        return self.names

    def apply_queues(self, broker: str, readings: Iterable[QueueReading], now: float) -> None:
        self.readings = list(readings)
        self.read.set()

    def apply_source(self, name: str, *, up: bool, duration: float | None = None) -> None:
        self.sources[name] = up

    def without_agent(self, broker: str, now: float) -> set[str]:
        return self.workers

    def apply_inspection(self, broker: str, facts: Mapping[str, WorkerFacts], now: float) -> None:
        self.facts.update(facts)

    def sent_at(self, uuid: str) -> float | None:
        return None


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class MakesQueues(memory.Transport):
    """As SQS, where asking for the size of a queue makes it."""

    class Channel(memory.Channel):
        def _has_queue(self, queue: str, **_: Any) -> bool:
            return True

        def _resolve_queue_url(self, queue: str) -> str:
            if queue not in self.queues:
                raise LookupError(f"no {queue} in SQS")
            return f"url of {queue}"


class NoFanout(memory.Transport):
    """As SQS: it carries tasks, and no questions to all workers."""

    implements = memory.Transport.implements.extend(exchange_type=frozenset(["direct"]))
    connections = 0

    def establish_connection(self) -> Any:
        NoFanout.connections += 1
        return super().establish_connection()


def send(queue: str, url: str = "memory://", **options: Any) -> None:
    with (
        Connection(url, transport_options=options) as connection,
        connection.SimpleQueue(queue) as simple,
    ):
        simple.put("x")
