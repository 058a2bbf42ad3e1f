"""What the exporter counts about itself, and how its sources are doing.

Only used by the fleet, which has the lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from celery_memory_exporter.common.codec import REASONS
from celery_memory_exporter.common.names import OTHER
from celery_memory_exporter.fleet.snapshot import SourceView


class OwnCounters:
    """Reports, events, connections, and what limits have kept out. Groups of events beyond
    ``max_groups`` are one."""

    def __init__(self, *, max_groups: int) -> None:
        self._max_groups = max_groups
        self.reports_received = 0
        self.reports_rejected: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.events_received: Counter[str] = Counter()
        #: Seconds that the last event took here, by its sender's clock.
        self.event_lag_seconds: float | None = None
        self.broker_reconnects = 0
        #: What limits have kept from becoming series, by family.
        self.dropped: Counter[str] = Counter()
        self.sources: dict[str, SourceView] = {}

    def count_report(self, refused: str | None) -> None:
        """A report came; ``refused`` is why it was not taken, one of ``REASONS``."""
        self.reports_received += 1
        if refused is not None:
            self.reports_rejected[refused] += 1

    def count_event(self, group: str, lag: float | None) -> None:
        """An event of any kind came."""
        if group not in self.events_received and len(self.events_received) >= self._max_groups:
            group = OTHER
        self.events_received[group] += 1
        if lag is not None:
            self.event_lag_seconds = lag

    def note_source(
        self, name: str, *, up: bool, duration: float | None, denied: Mapping[str, bool]
    ) -> None:
        """How a source is doing now."""
        self.sources[name] = SourceView(up, duration, dict(denied))
