"""How a run ends and what Celery makes of it, threads, contexts, recursion, and everything of the
process that a library could set."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import decimal
import gc
import json
import locale
import logging
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Task, current_task, signals
from celery.exceptions import Ignore, Reject
from celery.worker.request import Request

from tests.differential.behaviour import GREENLETS, POOLS, Observation, Run, behaviour
from tests.differential.behaviours.collector import Plain

REAL_THREADS = tuple(pool for pool in POOLS if pool not in GREENLETS)
VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE", default=-1)


# --- how it ends ----------------------------------------------------------------------------------


@behaviour()
def fails(run: Run) -> Observation:
    try:
        raise KeyError("cause")
    except KeyError as error:
        raise ValueError(f"as asked {run.number}") from error


@behaviour(spans=True)
def what_a_failure_held(run: Run) -> Observation:
    if run.first:
        died = run.memory["died"] = []
        held = Plain(died)
        raise ValueError(held.name)
    return {"died": run.memory["died"]}


class CountedError(Exception):
    """Counts how often it is pickled in this process."""

    pickled = 0

    def __reduce__(self) -> Any:
        CountedError.pickled += 1
        return CountedError, self.args


@behaviour(spans=True, pools=("prefork",))
def how_often_a_failure_is_pickled(run: Run) -> Observation:
    if run.first:
        CountedError.pickled = 0
        raise CountedError("as asked")
    return {"pickled": CountedError.pickled}


class UnpicklableError(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("not this one")


@behaviour()
def fails_with_what_does_not_pickle(run: Run) -> Observation:
    raise UnpicklableError("as asked")


@behaviour(max_retries=1)
def retries(run: Run) -> Observation:
    if run.task.request.retries == 0:
        raise run.task.retry(countdown=0)
    return {"retries": run.task.request.retries}


@behaviour()
def ignores(run: Run) -> Observation:
    run.task.update_state(state="IGNORED AS ASKED")
    raise Ignore


@behaviour(answers=False, pairs=3)
def rejects(run: Run) -> Observation:
    raise Reject("as asked", requeue=False)


@behaviour(pairs=5)
def answers_what_json_cannot_say(run: Run) -> Any:
    return {"object": object}


class Shown(dict):  # type: ignore[type-arg]
    """A result that counts how often its ``repr`` is asked for."""

    shown = 0

    def __repr__(self) -> str:
        Shown.shown += 1
        return "<shown>"


@behaviour(spans=True)
def how_often_a_result_is_shown(run: Run) -> Any:
    if run.first:
        Shown.shown = 0
        return Shown(shown="first")
    return {"shown": Shown.shown}


# --- Celery's own hooks ---------------------------------------------------------------------------

EVENTS: list[str] = []


class Hooked(Task):  # type: ignore[misc]  # Celery has no type information
    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        EVENTS.append("call")
        try:
            return super().__call__(*args, **kwargs)
        finally:
            EVENTS.append("called")

    def before_start(self, *_: Any) -> None:
        EVENTS.append("before_start")

    def on_success(self, retval: Any, *_: Any) -> None:
        EVENTS.append(f"on_success {retval}")

    def on_failure(self, exc: Any, *_: Any) -> None:
        EVENTS.append(f"on_failure {exc!r}")

    def after_return(self, status: Any, *_: Any) -> None:
        EVENTS.append(f"after_return {status}")


def note_signal(name: str) -> Any:
    def note(sender: Any = None, **_: Any) -> None:
        if isinstance(sender, Hooked):
            EVENTS.append(name)

    return note


for each in ("task_prerun", "task_postrun", "task_success", "task_failure"):
    getattr(signals, each).connect(note_signal(each), weak=False)


@behaviour(spans=True, base=Hooked)
def hooks(run: Run) -> Observation:
    if run.first:
        EVENTS.clear()
        if run.number % 4 == 0:
            raise ValueError("as asked")
        return {}
    return {"events": list(EVENTS)}


def tell(**facts: Any) -> None:
    """Into the file that the test reads, from the main process."""
    number = os.open(os.environ["TEST_TOLD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(number, (json.dumps(facts) + "\n").encode())
    finally:
        os.close(number)


class Told(Request):  # type: ignore[misc]
    """An application's own request class."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        tell(call="on_accepted", kind=[each.__name__ for each in type(self).__mro__])
        super().on_accepted(pid, time_accepted)

    def on_success(self, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        tell(call="on_success", retval=str(failed__retval__runtime[1]))
        return super().on_success(failed__retval__runtime, **kwargs)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        tell(call="on_failure", exception=repr(exc_info.exception))
        return super().on_failure(exc_info, *args, **kwargs)


@behaviour(Request="tests.differential.behaviours.running:Told")
def own_request(run: Run) -> Observation:
    if run.first:
        raise ValueError("as asked")
    return {"number": run.number}


@behaviour()
def current(run: Run) -> Observation:
    request = run.task.request
    return {
        "name": current_task.name == run.task.name,
        "request": sorted(vars(request)),
        "args": request.args == [run.number, run.payload],
        "references": sys.getrefcount(run.payload),
        "task": sorted(vars(run.task)),
    }


# --- threads and contexts -------------------------------------------------------------------------


@behaviour(spans=True)
def context(run: Run) -> Observation:
    if run.first:
        within = contextvars.copy_context().run(lambda: VARIABLE.set(1) and VARIABLE.get())
        VARIABLE.set(100 + run.number)
        return {"within": within}
    return {"second": VARIABLE.get() == 100 + run.number - 1}


@behaviour()
def threads(run: Run) -> Observation:
    local = threading.local()
    local.value = 1
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(hasattr(local, "value")))
    thread.start()
    thread.join()
    timer = threading.Timer(0.001, seen.append, ["timer"])
    timer.start()
    timer.join()
    with ThreadPoolExecutor(3) as executor:
        squares = list(executor.map(lambda number: number * number, range(6)))
    names = sorted(each.name for each in threading.enumerate())
    return {
        "seen": seen,
        "squares": squares,
        "names": [name for name in names if not name.startswith(("Thread", "Dummy"))],
        "hooks": threading.excepthook is threading.__excepthook__,
    }


@behaviour(spans=True, pools=REAL_THREADS)
def a_thread_that_outlives_the_run(run: Run) -> Observation:
    if run.first:
        run.memory["stop"], run.memory["ran"] = threading.Event(), []

        def wait() -> None:
            run.memory["ran"].append(run.memory["stop"].wait(5))

        run.memory["thread"] = threading.Thread(target=wait)
        run.memory["thread"].start()
        return {}
    alive = run.memory["thread"].is_alive()
    run.memory["stop"].set()
    run.memory["thread"].join()
    return {"alive": alive, "ran": run.memory["ran"]}


@behaviour(pools=REAL_THREADS, spans=True)
def tuples_of_another_thread(run: Run) -> Observation:
    """A tuple in the making may have one reference only, or ``tuple`` raises."""
    if run.first:
        run.memory["stop"], run.memory["errors"] = threading.Event(), 0

        def make() -> None:
            while not run.memory["stop"].is_set():
                try:
                    tuple([number] for number in range(400))
                except SystemError:
                    run.memory["errors"] += 1

        run.memory["thread"] = threading.Thread(target=make)
        run.memory["thread"].start()
        return {"made": len([[number] for number in range(2_000)])}
    run.memory["stop"].set()
    run.memory["thread"].join()
    return {"errors": run.memory["errors"]}


@behaviour(pools=REAL_THREADS, pairs=10)
def coroutines(run: Run) -> Observation:
    async def one(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def several() -> list[int]:
        return await asyncio.gather(*map(one, range(5)))

    return {"answers": asyncio.run(several())}


def down(left: int) -> int:
    return 1 + down(left - 1) if left else 0


@behaviour()
def recursion(run: Run) -> Observation:
    deepest = 0

    def endless(depth: int) -> None:
        nonlocal deepest
        deepest = depth
        endless(depth + 1)

    try:
        endless(0)
        seen = "no end"
    except RecursionError as error:
        seen = str(error)
    limit = sys.getrecursionlimit()
    return {"error": seen, "depth": deepest, "far": down(limit - 150), "limit": limit}


# --- what belongs to the whole process ------------------------------------------------------------


@behaviour()
def process(run: Run) -> Observation:
    limits = {
        name: resource.getrlimit(getattr(resource, name))
        for name in dir(resource)
        if name.startswith("RLIMIT_")
    }
    umask = os.umask(0o22)
    os.umask(umask)
    return {
        "limits": limits,
        "umask": umask,
        "folder": os.getcwd(),
        "environment": sorted(os.environ),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "path": sys.path,
        "finders": [getattr(each, "__name__", type(each).__name__) for each in sys.meta_path],
        "argv": sys.argv[:1],
        "switch": sys.getswitchinterval(),
        "dlopen": sys.getdlopenflags(),
        "hooks": [
            sys.excepthook is sys.__excepthook__,
            sys.unraisablehook is sys.__unraisablehook__,
            sys.displayhook is sys.__displayhook__,
            sys.breakpointhook is sys.__breakpointhook__,
        ],
        "asyncgen": [hook is None for hook in sys.get_asyncgen_hooks()],
        "timeout": socket.getdefaulttimeout(),
        "stack": threading.stack_size(),
        "timer": signal.getitimer(signal.ITIMER_REAL),
        "locale": locale.setlocale(locale.LC_ALL),
        "precision": decimal.getcontext().prec,
        "filters": len(warnings.filters),
        "handlers": [type(each).__name__ for each in logging.getLogger().handlers],
        "level": logging.getLogger().level,
        "affinity": len(os.sched_getaffinity(0)),
    }


@behaviour()
def modules(run: Run) -> Observation:
    return {"modules": sorted({name.partition(".")[0] for name in sys.modules})}


@behaviour()
def exit_handlers(run: Run) -> Observation:
    return {"handlers": atexit._ncallbacks()}


@behaviour(spans=True)
def chance(run: Run) -> Observation:
    """The agent draws its own numbers."""
    if run.first:
        random.seed(run.number)
        run.memory["wanted"] = random.Random(run.number).random()
        return {}
    return {"same": random.random() == run.memory["wanted"]}


@behaviour(spans=True, pools=("prefork", "solo"))
def a_lock_that_a_finalizer_takes(run: Run) -> Observation:
    """The run goes on holding it; garbage of the run asks for it, and does not wait for ever."""
    if run.first:
        lock = run.memory["lock"] = threading.Lock()
        got = run.memory["got"] = []

        class Asks:
            def __init__(self) -> None:
                self.itself = self

            def __del__(self) -> None:
                got.append(lock.acquire(timeout=0.001))

        lock.acquire()
        Asks()
        return {}
    gc.collect()
    run.memory["lock"].release()
    return {"got": run.memory["got"]}


@behaviour(spans=True)
def time_of_the_process(run: Run) -> Observation:
    """Clocks go on; nothing of them is set back."""
    clocks = [time.monotonic(), time.process_time(), time.time()]
    if run.first:
        run.memory["clocks"] = clocks
        return {}
    return {"on": [now >= then for now, then in zip(clocks, run.memory["clocks"], strict=True)]}
