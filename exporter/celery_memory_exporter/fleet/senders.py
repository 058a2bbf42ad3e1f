"""How often clients sent each task, to which queue, and, where senders are told apart, from which
host.

Only used by the fleet, which has the lock and says what time it is.
"""

from __future__ import annotations

from celery_memory_exporter.common.names import OTHER
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.snapshot import SentView

#: The hostname where senders are not told apart: a hundred web pods otherwise make a hundred times
#: the series.
GENERIC = "generic"
#: Queues told apart for each task type, on average.
QUEUES_PER_TASK = 2


class SentBook:
    """Counters by broker, task, sender and queue. Those of a sender that is silent for
    ``expire_after_seconds`` go."""

    def __init__(self, limits: Limits, *, senders: bool, expire_after_seconds: float) -> None:
        self.folded = 0
        self._limits = limits
        self._told_apart = senders
        self._expire_after_seconds = expire_after_seconds
        self._counts: dict[tuple[str, str, str, str], int] = {}
        self._seen: dict[str, float] = {}

    def add(self, broker: str, name: str, sender: str, queue: str, now: float) -> None:
        """One task that ``sender`` (a nodename) sent."""
        length = self._limits.label_length
        hostname = (
            self._hostname((sender.partition("@")[2] or sender)[:length], now)
            if self._told_apart
            else GENERIC
        )
        key = (broker, name[:length], hostname, queue[:length])
        if key not in self._counts and len(
            self._counts
        ) >= self._limits.tasks_per_worker * QUEUES_PER_TASK * max(1, len(self._seen)):
            self.folded += 1
            key = (broker, OTHER, hostname, "")
        self._counts[key] = self._counts.get(key, 0) + 1

    def _hostname(self, hostname: str, now: float) -> str:
        if hostname not in self._seen and len(self._seen) >= self._limits.senders:
            self.folded += 1
            hostname = OTHER
        self._seen[hostname] = now
        return hostname

    def forget(self, now: float) -> None:
        gone = {
            hostname
            for hostname, seen in self._seen.items()
            if now - seen > self._expire_after_seconds
        }
        if gone:
            self._seen = {
                hostname: seen for hostname, seen in self._seen.items() if hostname not in gone
            }
            self._counts = {key: count for key, count in self._counts.items() if key[2] not in gone}

    def views(self) -> tuple[SentView, ...]:
        return tuple(SentView(*key, count) for key, count in sorted(self._counts.items()))
