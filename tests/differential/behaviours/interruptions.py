"""Whatever interrupts a run: signals, alarms, exceptions sent by threads, time limits."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from tests.differential.behaviour import GREENLETS, POOLS, Observation, Run, behaviour

#: Signals have their handlers in the main thread, and so has the task in these.
MAIN_THREAD = tuple(pool for pool in POOLS if pool != "threads")
#: A thread is a greenlet in the others.
REAL_THREADS = tuple(pool for pool in POOLS if pool not in GREENLETS)
#: Of the flavours those whose runs are traced and watched the longest.
PATIENCE = 2.0


class TimeIsUpError(Exception):
    """The application's own."""


def raise_time_is_up(signum: int, frame: FrameType | None) -> None:
    raise TimeIsUpError


def work(kept: list[Any]) -> str:
    """Many lines, calls and allocations, until it is interrupted, or in vain."""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        kept.append([len(kept)])
        if len(kept) > 50:
            kept.clear()
    return "lost"


@behaviour(pools=MAIN_THREAD)
def alarm(run: Run) -> Observation:
    before = signal.signal(signal.SIGALRM, raise_time_is_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.0003 * (run.number % 10))
        seen = work([])
    except TimeIsUpError:
        seen = "TimeIsUpError"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return {"arrived": seen}


@behaviour(pools=MAIN_THREAD)
def alarm_that_nobody_catches(run: Run) -> Observation:
    before = signal.signal(signal.SIGALRM, raise_time_is_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        return {"arrived": work([])}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@behaviour(spans=True, pools=MAIN_THREAD)
def alarm_after_the_run(run: Run) -> Observation:
    """Its handler is called while the agent reads, or Celery stores."""
    if run.first:
        calls = run.memory["calls"] = []
        run.memory["before"] = signal.signal(signal.SIGALRM, lambda *_: calls.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.00002 * (1 + run.number))
        return {}
    begun = time.monotonic()
    while not run.memory["calls"] and time.monotonic() - begun < PATIENCE:
        time.sleep(0.0005)
    signal.signal(signal.SIGALRM, run.memory["before"])
    return {"calls": len(run.memory["calls"])}


@behaviour(pools=MAIN_THREAD)
def signal_to_itself(run: Run) -> Observation:
    seen: list[str] = []

    def note(signum: int, frame: FrameType | None) -> None:
        seen.append(f"{signal.Signals(signum).name} in {frame.f_code.co_name if frame else None}")

    before = signal.signal(signal.SIGUSR2, note)
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    return {"seen": seen}


@behaviour()
def handlers(run: Run) -> Observation:
    found = {}
    for each in sorted(signal.valid_signals()):
        handler = signal.getsignal(each)
        found[int(each)] = getattr(handler, "__qualname__", str(handler))
    return {
        "handlers": found,
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "timers": [signal.getitimer(each) for each in (0, 1, 2)],
    }


@behaviour(pools=MAIN_THREAD)
def ended_children_are_told(run: Run) -> Observation:
    """By SIGCHLD."""
    told: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda signum, _: told.append(signum))
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(3)
        _, status = os.waitpid(pid, 0)
    finally:
        signal.signal(signal.SIGCHLD, before)
    return {"told": len(told), "status": os.waitstatus_to_exitcode(status)}


def send(ident: int, after: float) -> None:
    time.sleep(after)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident), ctypes.py_object(TimeIsUpError)
    )


@behaviour(pools=REAL_THREADS)
def sent_exception(run: Run) -> Observation:
    delay = 0.0003 * (run.number % 10)
    sender = threading.Thread(target=send, args=(threading.get_ident(), delay))
    try:
        sender.start()
        seen = work([])
    except TimeIsUpError:
        seen = "TimeIsUpError"
    sender.join()
    return {"arrived": seen}


@behaviour(pools=("prefork",), pairs=6, soft_time_limit=0.04)
def soft_time_limit(run: Run) -> Observation:
    try:
        return {"arrived": work([])}
    except SoftTimeLimitExceeded as error:
        return {"arrived": repr(error)}


@behaviour(pools=("prefork",), pairs=6, soft_time_limit=0.04)
def soft_time_limit_that_nobody_catches(run: Run) -> Observation:
    return {"arrived": work([])}


@behaviour(pools=GREENLETS)
def time_out_of_greenlets(run: Run) -> Observation:
    kind, sleep = greenlet_tools()
    timeout = kind(0.002)
    if not timeout.pending:  # eventlet's has begun
        timeout.start()
    try:
        sleep(PATIENCE)
        seen = "lost"
    except BaseException as error:
        seen = type(error).__name__
        mine = error is timeout
    finally:
        timeout.cancel()
    return {"arrived": seen, "mine": mine}


def greenlet_tools() -> tuple[Any, Any]:
    """Of the pool that this is."""
    try:
        from gevent import monkey

        if monkey.is_module_patched("time"):
            import gevent

            return gevent.Timeout, gevent.sleep
    except ImportError:
        pass
    import eventlet

    return eventlet.Timeout, eventlet.sleep
