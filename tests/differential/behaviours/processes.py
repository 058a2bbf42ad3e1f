"""Processes that a run starts, descriptors, and limits of the kernel."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import tracemalloc
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tests.differential.behaviour import GREENLETS, POOLS, Observation, Run, behaviour

#: Elsewhere a process that is forked has the hub of all greenlets, with or without the agent.
REAL_THREADS = tuple(pool for pool in POOLS if pool not in GREENLETS)
MEBIBYTE = 1024 * 1024


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


@behaviour(pools=REAL_THREADS)
def fork(run: Run) -> Observation:
    before = threads()
    reader, writer = os.pipe()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        pid = os.fork()
    if pid == 0:
        seen = {
            "enabled": gc.isenabled(),
            "threshold": gc.get_threshold(),
            "tracing": tracemalloc.is_tracing(),
            "tracer": sys.gettrace() is None,
            "threads": threads(),
            "main": threading.current_thread() is threading.main_thread(),
            "names": len(threading.enumerate()),
        }
        os.write(writer, json.dumps(seen).encode())
        os._exit(7)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        child = json.loads(pipe.read())
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return {
        "code": code,
        "child": child,
        "threads": before,
        "warned": sum("fork" in str(each.message) for each in warned),
        **no_more(),
    }


def no_more() -> Observation:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return {"children": 0}
    return {"children": "some"}


@behaviour(pools=REAL_THREADS)
def wait_for_any(run: Run) -> Observation:
    child = subprocess.Popen(["/bin/sh", "-c", "exit 5"])
    pid, status = os.wait()
    with contextlib.suppress(ChildProcessError):
        child.wait()
    return {"mine": pid == child.pid, "code": os.waitstatus_to_exitcode(status), **no_more()}


@behaviour()
def program(run: Run) -> Observation:
    """With the descriptors that it inherits where nobody closes them."""
    script = "ls /proc/self/fd | tr '\\n' ' '; echo oh >&2; exit 6"
    seen = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, close_fds=False, check=False
    )
    return {"out": seen.stdout, "err": seen.stderr, "code": seen.returncode}


def double(number: int) -> int:
    return 2 * number


def double_in(queue: Any, number: int) -> None:
    queue.put(double(number))


@behaviour(pools=REAL_THREADS, pairs=2)
def executor_of_forks(run: Run) -> Observation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
            return {"doubled": list(executor.map(double, range(3)))}


@behaviour(pools=("prefork",), pairs=1, flavours=("objects",))
def spawned(run: Run) -> Observation:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=double_in, args=(queue, 4))
    process.start()
    process.join()
    return {"code": process.exitcode, "doubled": queue.get()}


@behaviour(pools=("prefork", "solo"), pairs=4)
def of_billiard(run: Run) -> Observation:
    import billiard

    try:
        process = billiard.Process(target=double, args=(4,))
        process.start()
        process.join()
    except AssertionError as error:
        return {"refused": str(error)}
    return {"code": process.exitcode}


@behaviour()
def descriptors(run: Run) -> Observation:
    before = len(os.listdir("/proc/self/fd"))
    with open("/dev/null") as file:
        number = file.fileno()
        more = len(os.listdir("/proc/self/fd")) - before
    return {"open": before, "number": number, "more": more, "standard": standard()}


def standard() -> list[str]:
    return [os.path.basename(os.path.realpath(f"/proc/self/fd/{number}")) for number in (0,)]


@behaviour(pools=("prefork",), spans=True, pairs=8)
def no_descriptor_left(run: Run) -> Observation:
    """Also for the agent. (A main process ends for lack of them, with and without it.)"""
    if run.first:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
        run.memory["limits"] = resource.getrlimit(resource.RLIMIT_NOFILE)
        opened = run.memory["opened"] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(numbers) + 8, run.memory["limits"][1]))
        try:
            while True:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            return {"error": errno.errorcode[error.errno or 0]}
    for number in run.memory["opened"]:
        os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, run.memory["limits"])
    return {"closed": True}


@behaviour(pairs=8)
def no_memory_left(run: Run) -> Observation:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (size + 64 * MEBIBYTE, limits[1]))
    try:
        seen = len(bytearray(256 * MEBIBYTE))
        return {"error": None, "bytes": seen}
    except MemoryError as error:
        return {"error": repr(error)}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@behaviour(pools=("prefork", "solo"), spans=True, pairs=3, flavours=("steady", "objects"))
def high_water_mark(run: Run) -> Observation:
    if run.first:
        used = bytearray(b"x") * (48 * MEBIBYTE)
        run.memory["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"used": len(used)}
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"fell": now < run.memory["peak"]}
