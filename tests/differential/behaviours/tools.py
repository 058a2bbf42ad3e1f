"""Tools that look into a run: tracemalloc, tracers, profilers, debuggers, ``sys.monitoring``."""

from __future__ import annotations

import bdb
import cProfile
import pstats
import sys
import threading
import trace
import tracemalloc
from collections.abc import Callable
from tracemalloc import start as early_start
from types import FrameType
from typing import Any

from tests.differential.behaviour import GREENLETS, POOLS, Observation, Run, behaviour

HERE = __file__
REAL_THREADS = tuple(pool for pool in POOLS if pool not in GREENLETS)


def fibonacci(number: int) -> int:
    if number < 2:
        return number
    return fibonacci(number - 1) + fibonacci(number - 2)


@behaviour()
def tracing_by_nobody(run: Run) -> Observation:
    return {
        "tracing": tracemalloc.is_tracing(),
        "start": getattr(tracemalloc.start, "__module__", None),
    }


@behaviour()
def tracemalloc_within(run: Run) -> Observation:
    tracemalloc.start(25)
    try:
        kept = [bytes(1000) for _ in range(10)]
        frames = tracemalloc.get_traceback_limit()
        found = tracemalloc.get_object_traceback(kept[0])
        first = tracemalloc.take_snapshot()
        kept += [bytes(1000) for _ in range(10)]
        own = tracemalloc.Filter(inclusive=True, filename_pattern=HERE)
        after = tracemalloc.take_snapshot().filter_traces([own])
        more = after.compare_to(first.filter_traces([own]), "lineno")
        return {
            "frames": frames,
            "line": found is not None and found[-1].filename == HERE,
            "more": sum(each.size_diff for each in more) >= 10_000,
            "traced": tracemalloc.get_traced_memory()[0] > 0,
            "after": _stopped(),
        }
    finally:
        tracemalloc.stop()


def _stopped() -> bool:
    tracemalloc.stop()
    return tracemalloc.is_tracing()


@behaviour(spans=True)
def tracemalloc_over_runs(run: Run) -> Observation:
    if run.first:
        tracemalloc.start(25)
        run.memory["kept"] = [bytes(1000)]
        return {"frames": tracemalloc.get_traceback_limit()}
    tracing, frames = tracemalloc.is_tracing(), tracemalloc.get_traceback_limit()
    found = tracemalloc.get_object_traceback(run.memory["kept"][0])
    return {
        "tracing": tracing,
        "still": frames,
        "line": found is not None and found[-1].filename == HERE,
        "after": _stopped(),
    }


@behaviour(spans=True)
def tracemalloc_started_by_a_name_of_before(run: Run) -> Observation:
    if run.first:
        early_start(25)
        return {"frames": tracemalloc.get_traceback_limit()}
    tracing = tracemalloc.is_tracing()
    tracemalloc.stop()
    return {"tracing": tracing}


@behaviour()
def tracer_of_nobody(run: Run) -> Observation:
    return {"tracer": sys.gettrace() is None, "profiler": sys.getprofile() is None}


@behaviour()
def tracer(run: Run) -> Observation:
    events: list[str] = []

    def follow(frame: FrameType, event: str, arg: Any) -> Any:
        events.append(f"{event} {frame.f_code.co_name} {frame.f_lineno}")
        return follow

    sys.settrace(follow)
    mine = sys.gettrace() is follow
    fibonacci(3)
    still = sys.gettrace() is follow
    sys.settrace(None)
    return {"events": events, "mine": mine, "still": still, "after": sys.gettrace() is None}


def counting_calls(run: Run) -> Callable[[FrameType, str, Any], None]:
    """A tracer or profiler that counts calls by the functions' names."""
    counts = run.memory["counts"] = {}

    def follow(frame: FrameType, event: str, arg: Any) -> None:
        name = frame.f_code.co_name
        counts[name] = counts.get(name, 0) + (event == "call")

    return follow


@behaviour(spans=True)
def tracer_over_runs(run: Run) -> Observation:
    if run.first:
        follow = run.memory["tracer"] = counting_calls(run)
        sys.settrace(follow)
        return {"fibonacci": fibonacci(5)}
    mine = sys.gettrace() is run.memory.pop("tracer")
    fibonacci(5)
    sys.settrace(None)
    return {"mine": mine, "calls": run.memory["counts"].get("fibonacci")}


@behaviour()
def profiler(run: Run) -> Observation:
    events: list[str] = []

    def follow(frame: FrameType, event: str, arg: Any) -> Any:
        events.append(f"{event} {frame.f_code.co_name}")

    sys.setprofile(follow)
    fibonacci(3)
    mine = sys.getprofile() is follow
    sys.setprofile(None)
    return {"events": events, "mine": mine}


@behaviour(spans=True)
def profiler_over_runs(run: Run) -> Observation:
    if run.first:
        follow = run.memory["profiler"] = counting_calls(run)
        sys.setprofile(follow)
        return {"fibonacci": fibonacci(5)}
    mine = sys.getprofile() is run.memory.pop("profiler")
    fibonacci(5)
    sys.setprofile(None)
    return {"mine": mine, "calls": run.memory["counts"].get("fibonacci")}


@behaviour()
def c_profile(run: Run) -> Observation:
    profile = cProfile.Profile()
    profile.runcall(fibonacci, 8)
    stats = pstats.Stats(profile)
    stats.calc_callees()
    found = {name: counts[1] for (_, _, name), counts in stats.stats.items()}  # type: ignore[attr-defined]
    return {"calls": found}


@behaviour()
def lines_that_ran(run: Run) -> Observation:
    """As a coverage tool counts them."""
    counter = trace.Trace(count=1, trace=0)
    answer = counter.runfunc(fibonacci, 5)
    counts = {
        line: count for (file, line), count in counter.results().counts.items() if file == HERE
    }
    return {"answer": answer, "counts": sorted(counts.values()), "after": sys.gettrace() is None}


class Debugger(bdb.Bdb):
    """Steps through lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def user_line(self, frame: FrameType) -> None:
        self.lines.append(frame.f_code.co_name)


@behaviour()
def debugger(run: Run) -> Observation:
    stepping = Debugger()
    answer = stepping.runcall(fibonacci, 3)
    return {"answer": answer, "lines": stepping.lines}


@behaviour(pools=REAL_THREADS)
def tracer_of_threads(run: Run) -> Observation:
    events: list[str] = []

    def follow(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_name == "fibonacci":
            events.append(event)
        return follow

    before = threading.gettrace() if hasattr(threading, "gettrace") else None
    threading.settrace(follow)
    try:
        thread = threading.Thread(target=fibonacci, args=(3,))
        thread.start()
        thread.join()
    finally:
        threading.settrace(before)  # type: ignore[arg-type]
    return {"before": before is None, "events": len(events)}


@behaviour()
def monitoring(run: Run) -> Observation:
    monitor: Any = getattr(sys, "monitoring", None)
    if monitor is None:
        return {"there": False}
    tools = [monitor.get_tool(number) for number in range(6)]
    calls: list[str] = []
    monitor.use_tool_id(4, "differential")
    try:
        event = monitor.events.PY_START
        monitor.register_callback(4, event, lambda code, _: calls.append(code.co_name))
        monitor.set_events(4, event)
        fibonacci(3)
        monitor.set_events(4, 0)
        monitor.register_callback(4, event, None)
    finally:
        monitor.free_tool_id(4)
    return {"tools": tools, "calls": calls.count("fibonacci")}


@behaviour()
def frames(run: Run) -> Observation:
    names = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return {"stack": names}
