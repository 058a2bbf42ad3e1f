"""How long counting a heap of a million objects pauses a process, against objgraph on the same
heap.

Both take turns, so that each finds the processor's caches as the other left them.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from typing import Any

from celery_memory_exporter.agent.heap.census import Census
from celery_memory_exporter.agent.settings import Settings
from tests.bench.heap import filled, in_fresh_process
from tests.bench.result import Options, Part, Row, spread

OBJECTS, LEAST_OBJECTS = 1_000_000, 10_000
TARGET_MS = 25.0


def figures(rounds: int, objects: int) -> dict[str, Any]:
    """Milliseconds of each, in this process."""
    import objgraph

    heap = filled(objects)
    settings = Settings()
    census = Census(settings.census_seconds, settings.census_pause_seconds)
    begun = time.perf_counter()
    census.take(warm=True)
    first = 1000 * (time.perf_counter() - begun)
    objgraph.growth()  # its first call only notes the counts
    takes, growths = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        census.take(warm=True)
        middle = time.perf_counter()
        objgraph.growth()
        takes.append(1000 * (middle - begun))
        growths.append(1000 * (time.perf_counter() - middle))
    return {
        "first": first,
        "takes": takes,
        "growths": growths,
        "objects": len(gc.get_objects()),
        "extra": len(heap),
    }


def measure(options: Options) -> list[Row]:
    objects = LEAST_OBJECTS if options.least else OBJECTS
    options.progress.tell(f"census: filling a heap with {objects:,} objects")
    found = in_fresh_process(__name__, options.rounds, objects)
    take, growth = statistics.median(found["takes"]), statistics.median(found["growths"])
    pause = 1000 * Settings().census_pause_seconds
    return [
        Row("objects in the heap", f"{found['objects']:,}"),
        Row(
            f"census, with a pause of {pause:.0f} ms",
            f"{spread(found['takes'])} ms",
            "",
            f"≤ {TARGET_MS:.0f} ms",
            take <= TARGET_MS,
        ),
        Row("the first census, of all objects", f"{found['first']:.1f} ms"),
        Row(
            "objgraph.growth()",
            f"{spread(found['growths'])} ms",
            f"{growth / take:.1f} × the census",
        ),
    ]


PART = Part(
    "pause by one count of a heap of a million objects, against objgraph", measure, rounds=5
)

if __name__ == "__main__":
    print(json.dumps(figures(*map(int, sys.argv[1:]))))
