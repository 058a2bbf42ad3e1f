"""How often clients sent each task, to which queue, and, where senders are told apart, from which
host.

Only used by the fleet, which has the lock and says what time it is.
"""

from __future__ import annotations

from celery_memory_exporter.common.names import OTHER
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import SentView

#: The hostname where senders are not told apart: a hundred web pods otherwise make a hundred times
#: the series.
GENERIC = "generic"
#: Queues told apart for each task type, on average.
QUEUES_PER_TASK = 2


class Senders:
    """Counters by broker, task, sender and queue. Those of a sender that is silent for
    ``expire_after_seconds`` go."""

    def __init__(self, rules: Rules) -> None:
        #: What limits have kept from having counters of their own.
        self.folded = 0
        self._rules = rules
        self._limits = rules.limits
        self._counts: dict[tuple[str, str, str, str], int] = {}
        self._seen: dict[str, float] = {}

    def add(self, broker: str, name: str, sender: str, queue: str, now: float) -> None:
        """One task that ``sender`` (a nodename) sent."""
        length = self._limits.label_length
        hostname = GENERIC
        if self._rules.senders:
            hostname = self._hostname((sender.partition("@")[2] or sender)[:length], now)
        key = (broker, name[:length], hostname, queue[:length])
        room = self._limits.tasks_per_worker * QUEUES_PER_TASK * max(1, len(self._seen))
        if key not in self._counts and len(self._counts) >= room:
            self.folded += 1
            key = (broker, OTHER, hostname, "")
        self._counts[key] = self._counts.get(key, 0) + 1

    def forget(self, now: float) -> None:
        """Senders that have been silent for too long."""
        silent = self._silent(now)
        if silent:
            self._counts = self._without(silent)
            self._seen = {name: seen for name, seen in self._seen.items() if name not in silent}

    def views(self, now: float) -> tuple[SentView, ...]:
        """By broker, task, sender and queue."""
        counts = self._without(self._silent(now))
        return tuple(SentView(*key, count) for key, count in sorted(counts.items()))

    def _hostname(self, hostname: str, now: float) -> str:
        if hostname not in self._seen and len(self._seen) >= self._limits.senders:
            self.folded += 1
            hostname = OTHER
        self._seen[hostname] = now
        return hostname

    def _silent(self, now: float) -> set[str]:
        expire_after_seconds = self._rules.expire_after_seconds
        return {name for name, seen in self._seen.items() if now - seen > expire_after_seconds}

    def _without(self, silent: set[str]) -> dict[tuple[str, str, str, str], int]:
        return {key: count for key, count in self._counts.items() if key[2] not in silent}
