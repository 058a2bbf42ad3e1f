"""A process of its own for what a heap's size decides, without what the benchmark itself has
loaded; and heaps of a known size."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.result import BenchError

ROOT = Path(__file__).parent.parent.parent
KINDS = 50
#: Environment variable that tells ``application`` how large its heap is to be.
OBJECTS_VARIABLE = "BENCH_OBJECTS"
#: How many objects that the collector tracks belong to one entry: itself, a list, a dict and a
#: tuple.
OBJECTS_OF_AN_ENTRY = 4
PATIENCE_SECONDS = 300.0


def filled(objects: int) -> list[object]:
    """So many objects that the collector tracks, of fifty classes and the usual containers."""
    kinds = [
        type(f"Kind{number}", (), {"__slots__": ("index", "items", "pair")})
        for number in range(KINDS)
    ]
    heap: list[object] = []
    gc.disable()  # else the collector looks at the growing heap again and again
    for number in range(objects // OBJECTS_OF_AN_ENTRY):
        entry: Any = kinds[number % KINDS]()
        entry.items = [number]
        entry.index = {number: entry.items}
        entry.pair = (number, entry.items)
        heap.append(entry)
    gc.enable()
    gc.collect()
    return heap


def in_fresh_process(module: str, *numbers: int) -> dict[str, Any]:
    """What the module prints as JSON when it is run. Raises ``BenchError`` when it fails, or takes
    minutes."""
    command = [sys.executable, "-m", module, *map(str, numbers)]
    try:
        process = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError(
            f"{module} took more than {PATIENCE_SECONDS:.0f} s; try again on an idle machine"
        ) from None
    if process.returncode != 0:
        why = (
            f"killed by signal {-process.returncode}"
            if process.returncode < 0
            else process.stderr[-2000:]
        )
        raise BenchError(f"{module} failed: {why}")
    figures: dict[str, Any] = json.loads(process.stdout)
    return figures
