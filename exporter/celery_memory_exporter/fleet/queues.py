"""Which queues there are, as long as anything tells of them: configured, consumed, or with
something in them.

Only used by the fleet, which has the lock and says what time it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from celery_memory_exporter.fleet.facts import QueueReading
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import QueueView

#: Broker and queue.
Key = tuple[str, str]


@dataclass(slots=True)
class _Queue:
    #: When it was last consumed or written to.
    seen: float
    #: The latest reading; none when the broker could not be asked.
    reading: QueueReading | None = None


class Queues:
    """Queues by broker and name. Those ``configured``, by broker, are there from the start and
    always; each broker is in there."""

    def __init__(self, rules: Rules, configured: Mapping[str, Iterable[str]]) -> None:
        self._configured = {
            (broker, name) for broker, names in configured.items() for name in names
        }
        self._limit = rules.limits.queues * len(configured)
        self._expire_after_seconds = rules.expire_after_seconds
        self._queues: dict[Key, _Queue] = {key: _Queue(0.0) for key in sorted(self._configured)}

    def see(self, broker: str, name: str, now: float) -> bool:
        """A worker consumes it or a client sends to it; whether there is room for it."""
        queue = self._queues.get((broker, name))
        if queue is not None:
            queue.seen = now
            return True
        if len(self._queues) >= self._limit:
            return False
        self._queues[broker, name] = _Queue(now)
        return True

    def names(self, broker: str, now: float) -> list[str]:
        """The broker's queues."""
        return [name for each, name in self._shown(now) if each == broker]

    def apply(self, broker: str, readings: Iterable[QueueReading], now: float) -> None:
        """Replaces what was read of this broker's queues before."""
        by_name = {reading.name: reading for reading in readings}
        for (each, name), queue in self._queues.items():
            if each == broker:
                queue.reading = by_name.get(name)
                if queue.reading is not None and queue.reading.length:
                    queue.seen = now

    def forget(self, now: float) -> None:
        """Those that have been neither consumed nor filled for too long."""
        self._queues = self._shown(now)

    def views(self, consumers: Mapping[Key, tuple[int, int]], now: float) -> tuple[QueueView, ...]:
        """``consumers``: workers and their processes by queue."""
        return tuple(
            QueueView(
                broker, queue.reading or QueueReading(name), *consumers.get((broker, name), (0, 0))
            )
            for (broker, name), queue in sorted(self._shown(now).items())
        )

    def _shown(self, now: float) -> dict[Key, _Queue]:
        return {
            key: queue
            for key, queue in self._queues.items()
            if key in self._configured or now - queue.seen <= self._expire_after_seconds
        }
