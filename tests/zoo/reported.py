"""Leaks that users of Celery reported, and innocents that look like leaks.

Nothing outlives the worker, save files in the folders that the runner gives and removes.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import types
from collections import OrderedDict, deque
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery import Celery

from tests.zoo.case import CASES, Case, add, app, innocent, leak, name_of

# --- leaks ---------------------------------------------------------------------------------------


class MyCacheEntry:
    def __init__(self, key: str) -> None:
        self.key = key
        self.payload = [key] * 100


_my_app_cache: dict[str, MyCacheEntry] = {}


@app.task
@leak("python", by=("_my_app_cache",), of=MyCacheEntry)
def unbounded_cache(number: int) -> None:
    key = f"user:{number}"
    _my_app_cache[key] = MyCacheEntry(key)


POOLS = {
    "threads": ("-P", "threads", "-c", "4"),
    "gevent": ("-P", "gevent", "-c", "20"),
    "eventlet": ("-P", "eventlet", "-c", "20"),
    "solo": ("-P", "solo"),
}
for _pool, _options in POOLS.items():
    add(replace(CASES["unbounded_cache"], name=f"unbounded_cache_{_pool}", pool=_options))

ROWS: list[dict[str, Any]] = []


@app.task
@leak("python", by=("ROWS",))
def list_of_dicts(number: int) -> None:
    ROWS.append({"id": number, "words": [f"{number}-{each}" for each in range(500)]})


class Drip:
    """64 bytes: two words of the collector's, a head of two, four empty slots."""

    __slots__ = ("number", "owner", "state", "when")


DRIPS: list[Drip] = []


@app.task
@leak(
    "python",
    by=("DRIPS",),
    of=Drip,
    beside={"noop": 0.5, "churn": 0.5, "dicts": 0.25, "bounded": 0.5},
    per_second=15.0,
)
def drip_beside_churn(number: int) -> None:
    DRIPS.append(Drip())


class Row:
    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


RARE: list[list[Row]] = []


@app.task
@leak("python", by=("RARE",), of=Row)
def rare_leak(number: int) -> None:
    """1 MB in one run of fifty."""
    if number % 50 == 49:
        RARE.append([Row(1_000_000 + each) for each in range(12_000)])


TEXTS: dict[str, str] = {}


@app.task
@leak("python", by=("TEXTS",))
def dict_of_strings(number: int) -> None:
    """Nothing here is tracked by the collector."""
    TEXTS[f"k{number}"] = "v" * 50_000


@app.task
@leak("python", "descriptors", by=("handlers", "_handlerList", "FileHandler"))
def logging_handler_per_task(number: int) -> None:
    handler = logging.FileHandler(Path(os.environ["ZOO_FOLDER"], "report.log"))
    logging.getLogger("zoo.report").addHandler(handler)


ERRORS: list[BaseException] = []


def parse(text: str) -> int:
    words = text.split()
    return int(words[0])


@app.task
@leak("python", by=("ERRORS", "traceback", "frame"))
def exception_kept(number: int) -> None:
    try:
        parse(f"not-a-number {number} " * 100)
    except ValueError as error:
        ERRORS.append(error)


FAILED: list[dict[str, Any]] = []


@app.task
@leak("python", by=("FAILED",))
def only_failing_runs_leak(number: int) -> None:
    if number % 2:
        FAILED.append({"run": number, "notes": [f"{number}-{each}" for each in range(50)]})
        raise ValueError("as asked")


def library() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    return libc


LIBC = library()


@app.task
@leak("native")
def native(number: int) -> None:
    address = LIBC.malloc(50_000)
    ctypes.memset(address, 1, 50_000)


@app.task
@leak("threads")
def thread_per_task(number: int) -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


CHILDREN: list[subprocess.Popen[bytes]] = []


@app.task
@leak("processes", "descriptors")
def child_never_waited(number: int) -> None:
    CHILDREN.append(subprocess.Popen(["true"], stdout=subprocess.PIPE))


@app.task
@leak("descriptors")
def descriptor_never_closed(number: int) -> None:
    os.open(os.devnull, os.O_RDONLY)


@app.task
@leak("shared")
def tmpfs_file_per_task(number: int) -> None:
    Path(os.environ["ZOO_SHARED"], f"{os.getpid()}-{number}").write_bytes(b"x" * 200_000)


@app.task
@leak("python", by=("sys.modules", "module"))
def module_per_task(number: int) -> None:
    module = types.ModuleType(f"zoo_generated_{number}")
    exec(
        "RATES = {n: n * 1.5 for n in range(20)}\ndef rate(n):\n    return RATES[n]\n",
        module.__dict__,
    )
    sys.modules[module.__name__] = module


@app.task
@leak("python", by=("AsyncResult", "_pending_results"), backend=True)
def results_never_read(number: int) -> None:
    """The backend keeps every result that waits for its callback; this one waits on a queue that
    nobody serves."""
    result = app.send_task(name_of("noop"), (number,), queue="nobody", ignore_result=False)
    result.then(print)


@app.task
@leak("python", by=("_on_app_finalizers",))
def celery_app_per_task(number: int) -> None:
    """An app goes when nobody refers to it, but each of its shared tasks stays with Celery for apps
    to come."""
    own = Celery(f"report{number}", broker="memory://", set_as_current=False)

    @own.task(name=f"report.{number}")
    def report(day: int) -> int:
        return day

    assert report.name


RECYCLED: list[list[str]] = []


@app.task
@leak("python", by=("RECYCLED",), pool=("-c", "2", "--max-tasks-per-child", "50"))
def leak_hidden_by_recycling(number: int) -> None:
    RECYCLED.append([f"row {number} {each}" for each in range(16_000)])


add(
    Case(
        "eta_flood",
        None,
        True,
        frozenset({"main"}),
        runs=20_000,
        per_second=5_000.0,
        eta_seconds=3600.0,
        beside={"noop": 0.02},
    )
)

# --- innocents -----------------------------------------------------------------------------------


class LimitedCache(OrderedDict[str, tuple[float, list[str]]]):
    """The oldest goes when it is full or out of date."""

    SIZE = 80
    SECONDS = 300.0

    def put(self, key: str, value: list[str]) -> None:
        now = time.monotonic()
        self[key] = (now, value)
        while len(self) > self.SIZE or next(iter(self.values()))[0] < now - self.SECONDS:
            self.popitem(last=False)


LIMITED = LimitedCache()


@app.task
@innocent()
def bounded_cache(number: int) -> None:
    LIMITED.put(f"user:{number}", [f"{number}-{each}" for each in range(100)])


@lru_cache(maxsize=64)
def rates(number: int) -> tuple[str, ...]:
    return tuple(f"{number}-{each}" for each in range(100))


@app.task
@innocent()
def bounded_lru_cache(number: int) -> int:
    return len(rates(number))


LAZY_MODULES = (
    "xml.dom.minidom",
    "sqlite3",
    "mailbox",
    "unittest.mock",
    "difflib",
    "ftplib",
    "turtledemo",
    "xmlrpc.client",
    "wave",
    "pdb",
)
CONNECTIONS: list[socket.socket] = []
WARM_UP_RUNS = itertools.count()


@app.task
@innocent()
def warm_up(number: int) -> None:
    """What the first twenty runs of a process bring with them: modules, connections, compiled
    expressions."""
    run = next(WARM_UP_RUNS)
    if run % 2 == 0 and run // 2 < len(LAZY_MODULES):
        __import__(LAZY_MODULES[run // 2])
    if len(CONNECTIONS) < 5:
        broker = urlsplit(os.environ["TEST_BROKER_URL"])
        CONNECTIONS.append(
            socket.create_connection((broker.hostname or "127.0.0.1", broker.port or 6379))
        )
    re.compile(rf"(\w+)-{run % 20}-(\d+)")


QUERIES: deque[dict[str, str]] = deque(maxlen=9000)


@app.task
@innocent()
def query_log(number: int) -> None:
    """As Django's ``connection.queries_log``; it is full after a hundred runs in one process."""
    for each in range(90):
        QUERIES.append(
            {"sql": f"SELECT {number} FROM t WHERE id = {each}", "time": f"{each / 1000:.3f}"}
        )


class Node:
    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.me = self


@app.task
@innocent()
def cyclic_garbage(number: int) -> None:
    Node(b"x" * 50_000)


@app.task
@innocent(runs=200, per_second=8.0)
def big_buffer_freed(number: int) -> int:
    return len(bytearray(300 * 1024 * 1024))


add(
    replace(
        CASES["big_buffer_freed"],
        name="big_buffer_recycled",
        pool=("-c", "2", "--max-memory-per-child", "200000"),
        runs=40,
        per_second=2.0,
    )
)


PINS: list[list[int]] = []


@app.task
@innocent()
def high_water(number: int) -> None:
    """400,000 small lists once in fifty runs. The few that stay until the next time keep the arenas
    of all the others."""
    lists = [[each] for each in range(400_000 if number % 50 == 49 else 40)]
    if number % 50 == 49:
        PINS[:] = lists[::2_000]


class Heap:
    """Live memory of one constant size whose blocks get larger: the holes that small ones leave are
    of no use.

    Payloads are such that glibc's chunks are 2,048 and 3,072 bytes: three small ones give way to
    two large ones, never two neighbours, so that no hole can be joined to another one.
    """

    HEAD = sys.getsizeof(b"") + 8
    SMALL, LARGE = 2048 - HEAD, 3072 - HEAD
    COUNT, MOVED = 24_000, 45

    def __init__(self) -> None:
        self.blocks: list[bytes | None] = [bytes(self.SMALL) for _ in range(self.COUNT)]
        self.next = 0

    def move(self) -> None:
        last = min(self.next + 2 * self.MOVED, self.COUNT)
        places = range(self.next, last, 2)
        self.next = last
        for place in places:
            self.blocks[place] = None
        for place in itertools.islice(places, len(places) * 2 // 3):
            self.blocks[place] = bytes(self.LARGE)


HEAPS: list[Heap] = []


@app.task
@innocent("allocator")
def fragmentation(number: int) -> None:
    if not HEAPS:
        HEAPS.append(Heap())
    HEAPS[0].move()


@app.task
@innocent(runs=150, per_second=6.0)
def big_result(number: int) -> list[str]:
    return [f"{each}".rjust(100) for each in range(70_000)]


@app.task
@innocent(
    runs=150,
    per_second=4.0,
    argument=lambda number: [f"{each}".rjust(100) for each in range(70_000)],
)
def big_argument(rows: list[str]) -> int:
    return len(rows)


@app.task
@innocent()
def failing(number: int) -> None:
    rows = [f"{number}-{each}" for each in range(1_000)]
    raise ValueError(f"{len(rows)} rows, as asked")


SAW: dict[int, list[str]] = {}
SAW_TEETH = [0]


@app.task
@innocent()
def sawtooth(number: int) -> None:
    """A cache that is emptied every hundred runs of the task."""
    if number // 100 != SAW_TEETH[0]:
        SAW_TEETH[0] = number // 100
        SAW.clear()
    SAW[number] = [f"{number}-{each}" for each in range(100)]
