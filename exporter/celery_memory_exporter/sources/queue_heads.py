"""How long the message at the head of a queue has waited, as far as it, its sender or our own
watching tells.

The message comes from the network: what it holds is looked at and never trusted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery_memory_exporter.common.message_times import sent_at, unix_time

#: A larger message is not parsed: its age is not worth the memory.
MAX_MESSAGE_BYTES = 1024 * 1024
MAX_ID_LENGTH = 255

#: Queue and priority step.
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Head:
    """What the next message tells of itself. Times are Unix seconds."""

    #: Its own, the same only as long as it is the same message.
    message_id: str | None
    task_id: str | None
    sent: float | None
    due: float | None


class Heads:
    """Remembers, of the latest reading alone, which messages were at the heads and since when."""

    def __init__(self, sent_at: Callable[[str], float | None]) -> None:
        self._sent_at = sent_at
        self._first_seen: dict[Place, tuple[str, float]] = {}

    def ages(
        self, bodies: Mapping[Place, bytes], now: float, monotonic: float
    ) -> dict[Place, float]:
        """Seconds that these messages have waited or, where nothing tells when they were sent, have
        at least waited.

        A message without an age is absent: it is new to us, or not yet due. ``now`` is Unix time.
        """
        before, self._first_seen = self._first_seen, {}
        ages = {}
        for place, body in bodies.items():
            head = parse(body)
            if head is None:
                continue
            watched = self._watch(place, head, before, monotonic)
            age = self._age(head, watched, now)
            if age is not None:
                ages[place] = age
        return ages

    def _watch(
        self, place: Place, head: Head, before: Mapping[Place, tuple[str, float]], monotonic: float
    ) -> float | None:
        """For how long the message has been at the head; ``None`` when it is seen there first."""
        if head.message_id is None:
            return None
        message_id, first = before.get(place, ("", monotonic))
        known = message_id == head.message_id
        self._first_seen[place] = (head.message_id, first if known else monotonic)
        return monotonic - first if known else None

    def _age(self, head: Head, watched: float | None, now: float) -> float | None:
        if head.due is not None and head.due > now:
            return None
        sent = head.sent
        if sent is None and head.task_id is not None:
            sent = self._sent_at(head.task_id)
        age = watched if sent is None else max(0.0, now - sent)
        if age is None or head.due is None:
            return age
        return min(age, now - head.due)


def parse(body: bytes) -> Head | None:
    """Reads a message as kombu's virtual transports store it; ``None`` when it is something else,
    or too large."""
    if len(body) > MAX_MESSAGE_BYTES:
        return None
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict):
        return None
    headers, properties = _mapping(message.get("headers")), _mapping(message.get("properties"))
    task_id = _id(headers.get("id")) or _id(properties.get("correlation_id"))
    return Head(
        message_id=_id(properties.get("delivery_tag")) or task_id,
        task_id=task_id,
        sent=sent_at(headers, properties),
        due=unix_time(headers.get("eta")),
    )


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _id(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH else None
