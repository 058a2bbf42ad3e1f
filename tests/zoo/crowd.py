"""Other programs on the same machine: so many processes that compute in bursts, touch much memory
and give it back, start interpreters, and rest in between."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Steps of a loop: from a millisecond to some fifty.
BURST_STEPS = (20_000, 1_000_000)
MEBIBYTES, PAGE_BYTES = 40, 4096
LIBRARIES = "import json, sqlite3, unittest, xml.dom.minidom"


def compute() -> None:
    sum(range(random.randrange(*BURST_STEPS)))
    time.sleep(random.uniform(0, 0.01))


def touch_memory() -> None:
    held = [bytearray(1 << 20) for _ in range(random.randrange(MEBIBYTES))]
    for each in held:
        each[::PAGE_BYTES] = b"x" * len(each[::PAGE_BYTES])


def start_an_interpreter() -> None:
    subprocess.run([sys.executable, "-c", LIBRARIES], check=False)


def live() -> None:
    """What one of them does, for some seconds the same."""
    while True:
        does = random.choice((compute, compute, compute, touch_memory, start_an_interpreter))
        until = time.monotonic() + random.uniform(1, 8)
        while time.monotonic() < until:
            does()


@contextmanager
def crowd(size: int) -> Iterator[None]:
    """So many of them, as long as it lasts."""
    spawned = multiprocessing.get_context("spawn")
    neighbours = [spawned.Process(target=live, daemon=True) for _ in range(size)]
    for each in neighbours:
        each.start()
    try:
        yield
    finally:
        for each in neighbours:
            each.terminate()
            each.join()
