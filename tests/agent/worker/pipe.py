"""What the parts of a pool child write into, without a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.records import Record

Kind = TypeVar("Kind")


class Pipe:
    """A channel that does something while a record is sent, or refuses it."""

    def __init__(self) -> None:
        self.sent: list[Record] = []
        self.during: Callable[[], object] = lambda: None
        self.full = False
        self.states: list[tuple[tuple[int, float, int, int], str]] = []

    def send(self, record: Record) -> bool:
        self.during()
        if not self.full:
            self.sent.append(record)
        return not self.full

    def claim(self, slot: int) -> int | None:
        return slot if slot >= 0 else None

    def write(self, place: int, state: tuple[int, float, int, int], task: str) -> None:
        self.states.append((state, task))

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The records of one kind that were sent."""
        return [record for record in self.sent if isinstance(record, kind)]

    @property
    def channel(self) -> Channel:
        """Itself, where a channel is wanted."""
        return cast(Channel, self)
