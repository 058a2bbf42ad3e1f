"""Mechanisms beyond those that users reported: the ways in which Python code keeps what it should
not, and seems to.

They were written to find out whether the verdict holds for what it was not made from. The rules of
``case`` hold here, too.
"""

from __future__ import annotations

import array
import asyncio
import atexit
import collections
import contextvars
import ctypes
import functools
import gc
import heapq
import io
import itertools
import json
import linecache
import logging
import logging.handlers
import mmap
import os
import pickle
import queue
import random
import select
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
import tracemalloc
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import shared_memory
from typing import Any, ClassVar
from unittest import mock

from celery import Task, signals

from tests.zoo.case import app, innocent, leak
from tests.zoo.reported import LIBC

# --- leaks: held by something that is no plain module-level container ----------------------------


class Order:
    """Each knows all others."""

    instances: ClassVar[list[Order]] = []

    def __init__(self, number: int) -> None:
        self.lines = [f"{number}-{each}" for each in range(20)]
        Order.instances.append(self)


@app.task
@leak("python", by=("instances",), of=Order)
def class_registry(number: int) -> None:
    Order(number)


def remember(item: dict[str, int], seen: list[dict[str, int]] = []) -> int:  # noqa: B006  # the leak
    seen.append(item)
    return len(seen)


@app.task
@leak("python", by=("remember", "seen"))
def default_argument(number: int) -> None:
    remember({"run": number})


class Converter:
    @functools.cache  # noqa: B019  # the leak
    def convert(self, text: str) -> bytes:
        return text.encode() * 20


@app.task
@leak("python", by=("convert",), of=Converter)
def unbounded_lru_on_a_method(number: int) -> None:
    Converter().convert(f"{number}-text")


LOCAL = threading.local()


@app.task
@leak("python", by=("LOCAL",))
def thread_local(number: int) -> None:
    LOCAL.__dict__.setdefault("pages", []).append(f"page {number}" * 10)


TRAIL: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar("TRAIL", default=())


@app.task
@leak("python", by=("TRAIL",))
def nested_context(number: int) -> None:
    """Each value refers to the one before."""
    TRAIL.set((f"step {number}", TRAIL.get()))


def counted() -> Any:
    calls: list[tuple[int, float]] = []

    def call(number: int) -> int:
        calls.append((number, time.time()))
        return len(calls)

    return call


CALL = counted()


@app.task
@leak("python", by=("calls",))
def closure(number: int) -> None:
    CALL(number)


@app.task
@leak("python", by=("receivers", "task_success", "signal"))
def signal_receiver(number: int) -> None:
    def tell(**_: Any) -> int:
        return number

    signals.task_success.connect(tell, weak=False)


@app.task
@leak("python", by=("atexit",))
def exit_handler(number: int) -> None:
    atexit.register(print, [f"{number}"] * 50)


class Session:
    def __init__(self, number: int) -> None:
        self.cookies = {f"{number}-{each}": each for each in range(10)}


SESSIONS: set[Session] = set()


@app.task
@leak("python", by=("SESSIONS", "finalize", "_registry"), of=Session)
def finalizer(number: int) -> None:
    """The callback's argument keeps what the finalizer waits for."""
    session = Session(number)
    weakref.finalize(session, SESSIONS.discard, session)


class Link:
    def __init__(self, before: Link | None) -> None:
        self.before = before
        self.text = f"{time.time()}"


CHAIN: dict[str, Link | None] = {"head": None}


@app.task
@leak("python", by=("CHAIN",), of=Link)
def linked_list(number: int) -> None:
    """No container ever grows."""
    CHAIN["head"] = Link(CHAIN["head"])


class Remembering(Task):
    def __init__(self) -> None:
        self.seen: list[dict[str, int]] = []


@app.task(bind=True, base=Remembering)
@leak("python", by=("task_state.seen",))
def task_state(self: Any, number: int) -> None:
    """A task is one object for all its runs."""
    self.seen.append({"number": number})


def call(number: int) -> int:
    return number


@app.task
@leak("python", by=("call", "function", "cell"))
def patched_again(number: int) -> None:
    """Each patch keeps the one before."""
    global call  # noqa: PLW0603  # the leak
    before = call
    call = lambda value: before(value) + 1  # noqa: E731


class Service:
    def __init__(self) -> None:
        self.metrics: dict[str, dict[str, list[float]]] = {"http": {"latency": []}}


SERVICE = Service()


@app.task
@leak("python", by=("SERVICE",))
def nested_attribute(number: int) -> None:
    SERVICE.metrics["http"]["latency"].extend([number + 0.5, number + 0.25])


DEFAULTS: collections.defaultdict[str, list[int]] = collections.defaultdict(list)


@app.task
@leak("python", by=("DEFAULTS",))
def defaultdict_read(number: int) -> int:
    """Looking a key up makes it."""
    return len(DEFAULTS[f"tenant:{number}"])


CLIENT = mock.MagicMock()


@app.task
@leak("python", by=("CLIENT", "mock"))
def mock_calls(number: int) -> None:
    CLIENT.send(number, body="x" * 100)


@app.task
@leak("python", by=("loggerDict", "Logger", "logging"))
def logger_per_task(number: int) -> None:
    logging.getLogger(f"report.{number}").debug("made")


BUFFER = logging.handlers.MemoryHandler(10**9, flushLevel=100)


@app.task
@leak("python", by=("BUFFER", "LogRecord"))
def memory_handler(number: int) -> None:
    BUFFER.emit(logging.LogRecord("zoo", logging.INFO, __file__, 1, "run %s", (number,), None))


@app.task
@leak("python", by=("linecache",))
def linecache_of_generated_code(number: int) -> None:
    name = f"<generated {number}>"
    lines = [f"x{each} = {each}\n" for each in range(40)]
    linecache.cache[name] = (1, None, lines, name)


GENERATORS: list[Any] = []


def countdown(rows: list[str]) -> Any:
    yield from rows


@app.task
@leak("python", by=("GENERATORS", "generator"))
def suspended_generator(number: int) -> None:
    generator = countdown([f"{number}-{each}" for each in range(30)])
    next(generator)
    GENERATORS.append(generator)


TEXT = bytearray()


@app.task
@leak("python", by=("TEXT",))
def growing_bytearray(number: int) -> None:
    TEXT.extend(b"%d," % number * 500)


JOBS: queue.Queue[bytes] = queue.Queue()


@app.task
@leak("python", by=("JOBS",))
def queue_without_consumer(number: int) -> None:
    JOBS.put(b"%d" % number * 200)


@app.task
@leak("python", by=("environ",))
def environment_variable(number: int) -> None:
    os.environ[f"ZOO_RUN_{number}"] = "x" * 300


class Plugin:
    registry: ClassVar[dict[str, type]] = {}

    def __init_subclass__(cls) -> None:
        Plugin.registry[cls.__name__] = cls


@app.task
@leak("python", by=("registry", "type", "Plugin"))
def class_per_task(number: int) -> None:
    type(f"Plugin{number}", (Plugin,), {"number": number})


PICKLER = pickle.Pickler(io.BytesIO())


@app.task
@leak("python", by=("PICKLER", "Pickler"))
def pickler_memo(number: int) -> None:
    """A pickler that is used again keeps all that it pickled."""
    PICKLER.dump([f"{number}-{each}" for each in range(20)])


HEAP: list[tuple[float, int, dict[str, int]]] = []


@app.task
@leak("python", by=("HEAP",))
def priority_queue(number: int) -> None:
    heapq.heappush(HEAP, (random.random(), number, {"number": number}))


NUMBERS = array.array("d")


@app.task
@leak("python", by=("NUMBERS",))
def array_of_numbers(number: int) -> None:
    NUMBERS.extend(float(each) for each in range(500))


LOOP = asyncio.new_event_loop()


@app.task
@leak("python", by=("LOOP", "TimerHandle", "_scheduled"))
def event_loop_timers(number: int) -> None:
    LOOP.call_later(3600.0, print, f"run {number}" * 20)


FORKED: list[list[str]] = []


@app.task
@leak("python", by=("FORKED",))
def leak_beside_a_fork(number: int) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    FORKED.append([f"{number}-{each}" for each in range(20)])


class Payload:
    def __init__(self) -> None:
        self.rows = [str(each) for each in range(10)]


@app.task
@leak("python", of=Payload, by=("C code",))
def reference_count_of_c_code(number: int) -> None:
    """A C extension that forgets to release: no holder."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(Payload()))


# --- leaks: other than Python's memory ----------------------------------------------------------

DATABASE = sqlite3.connect(":memory:", check_same_thread=False)
DATABASE.execute("CREATE TABLE rows (number INTEGER, text TEXT)")


@app.task
@leak("native")
def rows_in_memory_database(number: int) -> None:
    with DATABASE:
        DATABASE.execute("INSERT INTO rows VALUES (?, ?)", (number, "x" * 20_000))


@app.task
@leak("native")
def native_in_one_of_ten(number: int) -> None:
    if number % 10 == 3:
        LIBC.calloc(1, 200_000)


COMPRESSORS: list[Any] = []


@app.task
@leak("native", "python", by=("COMPRESSORS",))
def compressor_kept(number: int) -> None:
    COMPRESSORS.append(zlib.compressobj())


SOCKETS: list[socket.socket] = []


@app.task
@leak("descriptors", by=("SOCKETS", "socket"))
def socket_kept(number: int) -> None:
    SOCKETS.extend(socket.socketpair())


@app.task
@leak("descriptors")
def epoll_detached(number: int) -> None:
    epoll = select.epoll()
    os.dup(epoll.fileno())


@app.task
@leak("descriptors", "python", by=("epoll", "selector", "event_loop", "new_event_loop", "LOOPS"))
def event_loop_never_closed(number: int) -> None:
    LOOPS.append(asyncio.new_event_loop())


LOOPS: list[Any] = []


@app.task
@leak("threads")
def executor_never_shut_down(number: int) -> None:
    ThreadPoolExecutor(1).submit(threading.Event().wait)


@app.task
@leak("threads", "python", by=("Timer",))
def long_timer(number: int) -> None:
    timer = threading.Timer(3600.0, print)
    timer.daemon = True
    timer.start()


@app.task
@leak("processes")
def forked_and_never_waited(number: int) -> None:
    if os.posix_spawn("/bin/true", ["true"], {}) == 0:
        os._exit(0)


@app.task
@leak("shared", "descriptors")
def shared_memory_never_unlinked(number: int) -> None:
    block = shared_memory.SharedMemory(
        create=True, size=200_000, name=f"zoo_{os.getpid()}_{number}"
    )
    block.buf[:] = b"x" * 200_000
    block.close()
    os.rename(
        f"/dev/shm/zoo_{os.getpid()}_{number}", f"{os.environ['ZOO_SHARED']}/{os.getpid()}-{number}"
    )


MAPS: list[mmap.mmap] = []


@app.task
@leak("shared", by=("MAPS", "mmap"))
def shared_map_kept(number: int) -> None:
    MAPS.append(mmap.mmap(-1, 200_000))
    MAPS[-1].write(b"x" * 200_000)


MMAP = LIBC.mmap
MMAP.restype = ctypes.c_void_p
MMAP.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


@app.task
@leak("resident")
def map_never_unmapped(number: int) -> None:
    """Pages that never were malloc's, as pools of Arrow and PyTorch take them; so much that it
    shows beside the 30 MB that a neighbour takes and gives back."""
    address = MMAP(None, 2_000_000, mmap.PROT_READ | mmap.PROT_WRITE, PRIVATE, -1, 0)
    ctypes.memset(address, 1, 2_000_000)


@app.task
@leak("garbage", "python", of=None)
def collector_off(number: int) -> None:
    gc.disable()
    node: list[Any] = [f"{number}"] * 200
    node.append(node)


# --- innocents ----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1_000)
def described(number: int) -> str:
    return f"{number}" * 50


@app.task
@innocent()
def lru_cache_that_is_not_full_yet(number: int) -> None:
    """Bounded by construction, although it grows all the time here."""
    described(number)


class Lru:
    def __init__(self, maxsize: int) -> None:
        self.maxsize = maxsize
        self.entries: collections.OrderedDict[str, bytes] = collections.OrderedDict()

    def put(self, key: str, value: bytes) -> None:
        self.entries[key] = value
        while len(self.entries) > self.maxsize:
            self.entries.popitem(last=False)


RECENTLY = Lru(128)


@app.task
@innocent()
def own_lru_of_128(number: int) -> None:
    RECENTLY.put(f"{number}", b"x" * 3_000)


BY_CUSTOMER: dict[int, list[str]] = {}


@app.task
@innocent()
def cache_by_few_keys(number: int) -> None:
    """A key of forty, by chance: it fills ever more slowly."""
    BY_CUSTOMER[random.randrange(40)] = [f"{number}-{each}" for each in range(50)]


BATCH: list[dict[str, str]] = []


@app.task
@innocent()
def batch_written_now_and_then(number: int) -> None:
    BATCH.append({"run": f"{number}" * 50})
    if len(BATCH) >= 30:
        json.dumps(BATCH)
        BATCH.clear()


WEAK: weakref.WeakValueDictionary[int, Payload] = weakref.WeakValueDictionary()


@app.task
@innocent()
def weak_cache(number: int) -> None:
    WEAK[number] = payload = Payload()
    assert WEAK[number] is payload


CONFIG: dict[str, list[str]] = {}


@app.task
@innocent()
def settings_loaded_anew(number: int) -> None:
    if number % 25 == 0:
        CONFIG["rows"] = [f"{number}-{each}" for each in range(20_000)]


POOLED: list[socket.socket] = []


@app.task
@innocent()
def connection_pool(number: int) -> None:
    """Grows by chance to its ten."""
    if len(POOLED) < 10 and random.random() < 0.2:
        POOLED.append(socket.socket())


@app.task
@innocent()
def children_and_threads_that_end(number: int) -> None:
    subprocess.run(["true"], check=True, stdout=subprocess.PIPE)
    thread = threading.Thread(target=len, args=("x" * number,))
    thread.start()
    thread.join()
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100_000)


@app.task(bind=True, max_retries=1)
@innocent()
def retried(self: Any, number: int) -> None:
    if self.request.retries == 0:
        raise self.retry(exc=ValueError(f"again {number}"), countdown=0)


@app.task
@innocent()
def traces_by_itself(number: int) -> None:
    """The application looks for its own leaks."""
    if not tracemalloc.is_tracing():
        tracemalloc.start(2)
    [f"{number}-{each}" for each in range(100)]


@app.task
@innocent()
def freezes_its_heap(number: int) -> None:
    """To keep pages shared with the parent. Nothing can be audited then; its cycles wait for the
    collector."""
    if gc.get_freeze_count() < 10_000:
        gc.freeze()
    node: list[Any] = [f"{number}-{each}" for each in range(100)]
    node.append(node)


@app.task
@innocent()
def one_large_table_late(number: int) -> None:
    """Loaded when it is first needed."""
    if next(LATE_RUNS) == 60:
        LATE.append({f"{each}": each for each in range(50_000)})


LATE: list[Any] = []
LATE_RUNS = itertools.count()


@app.task
@innocent()
def parses_and_compresses(number: int) -> int:
    rows = json.loads(json.dumps([{"id": each, "name": f"name {each}"} for each in range(3_000)]))
    return len(zlib.compress(pickle.dumps(rows)))
