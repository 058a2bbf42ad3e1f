"""What the parts of a pool child write into, without a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.records import Record
from celery_memory_exporter.agent.worker.shared_map import Shape, SharedMap

Kind = TypeVar("Kind")


class Pipe:
    """A channel that does something while a record is sent, or refuses it."""

    def __init__(self, rows: int = 3) -> None:
        self.sent: list[Record] = []
        self.during: Callable[[], object] = lambda: None
        self.full = False
        #: With room for so many task types, in each of two slots.
        self.shared = SharedMap.anonymous(Shape(slots=2, rows=rows, places=8))

    def send(self, record: Record) -> bool:
        self.during()
        if not self.full:
            self.sent.append(record)
        return not self.full

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The records of one kind that were sent."""
        return [record for record in self.sent if isinstance(record, kind)]

    @property
    def channel(self) -> Channel:
        """Itself, where a channel is wanted."""
        return cast(Channel, self)
