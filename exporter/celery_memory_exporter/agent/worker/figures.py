"""What only a process itself can know of its memory: what its interpreter and its C heap hold."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass

from celery_memory_exporter.agent.stats.readings import Readings


@dataclass(frozen=True, slots=True)
class OwnFigures:
    """By the names of ``ProcessReport``; ``None`` where the process could not read a figure, or has
    not sent it yet."""

    python_blocks: int | None = None
    native_live_bytes: int | None = None
    native_free_bytes: int | None = None
    gc_objects: int | None = None
    gc_uncollectable: int | None = None
    gc_collections: list[int] | None = None
    gc_enabled: int | None = None
    peak_rss_bytes: int | None = None


def own_figures(readings: Readings, *, objects: int | None, peak_bytes: int) -> OwnFigures:
    """Of this process now. ``objects`` is what the last census counted, ``peak_bytes`` the highest
    resident memory of the process's whole life."""
    return OwnFigures(
        python_blocks=sys.getallocatedblocks(),
        native_live_bytes=readings.native_live(),
        native_free_bytes=readings.native_free(),
        gc_objects=objects,
        gc_uncollectable=len(gc.garbage),
        gc_collections=readings.collections(),
        gc_enabled=int(gc.isenabled()),
        peak_rss_bytes=peak_bytes,
    )
