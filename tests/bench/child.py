"""What the agent costs a pool child: when it begins, and in a run that is neither audited nor read.

Such a run is measured in a loop, with all of the agent's code and data in the processor's caches,
and once for each time that the child wakes up, behind something else that has taken their place.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.heap.census import Census
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.inheritance import Inheritance
from celery_memory_exporter.agent.worker.pool_child import ChildAgent
from celery_memory_exporter.agent.worker.shared_map import Shape, SharedMap
from tests.bench.heap import filled, in_fresh_process
from tests.bench.result import Options, Part, Row, spread

EXTRA_OBJECTS = (0, 900_000)
#: Milliseconds of a child's start, by objects; microseconds of a run.
START_TARGETS_MS = {0: 2.0, 900_000: 5.0}
LOOP_TARGET_US, WAKE_TARGET_US = 8.0, 20.0
LOOP_RUNS, WAKE_RUNS = 2_000, 200
WAKE_PAUSE_SECONDS = 0.001
#: More than a core's own caches.
OTHERS_BYTES = 8 * 1024 * 1024
REQUEST = {"delivery_info": {"routing_key": "celery"}}

Trace = Callable[..., Any]


def bare(uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
    """A task's tracer that does nothing."""
    return trace_ok_t(None, None, 0.25, "None")


def inheritance() -> tuple[Inheritance, Census]:
    """As a worker's main process makes it before its first fork."""
    settings = Settings()
    channel = Channel(SharedMap.anonymous(Shape.of(2, settings.max_tasks)))
    seconds = settings.census_seconds, settings.census_pause_seconds
    census = Census(*seconds, most_copied=settings.census_max_objects)
    census.take(warm=False)
    return Inheritance.of(channel, settings, Readings(), None), census


def in_fork(answer: Callable[[], Any]) -> Any:
    """What the function answers in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writer, json.dumps(answer()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        return json.load(stream)


def start_milliseconds(inherited: Inheritance, census: Census) -> float:
    begun = time.process_time()
    ChildAgent(inherited, 0, census.forked())
    return 1e3 * (time.process_time() - begun)


def run_microseconds(inherited: Inheritance, census: Census, rounds: int) -> dict[str, list[float]]:
    """Of CPU time, beyond the bare tracer: both take turns."""
    child = ChildAgent(inherited, 0, census.forked())
    child.stop_helper()
    child.meter.auditor.budget = child.meter.sampler.budget = Budget(0.0, -1.0)
    trace = measured(child.meter, "bench", bare)
    in_loop(trace)
    found: dict[str, list[float]] = {"loop": [], "wake": []}
    for _ in range(rounds):
        found["loop"].append(in_loop(trace) - in_loop(bare))
        found["wake"].append(once_per_wake_up(trace) - once_per_wake_up(bare))
    return found


def in_loop(trace: Trace) -> float:
    begun = time.thread_time()
    for _ in range(LOOP_RUNS):
        trace("uuid", (), {}, REQUEST)
    return 1e6 * (time.thread_time() - begun) / LOOP_RUNS


def once_per_wake_up(trace: Trace) -> float:
    others, spent = bytearray(OTHERS_BYTES), 0.0
    for _ in range(WAKE_RUNS):
        time.sleep(WAKE_PAUSE_SECONDS)
        others[::64] = others[::64]
        begun = time.thread_time()
        trace("uuid", (), {}, REQUEST)
        spent += time.thread_time() - begun
    return 1e6 * spent / WAKE_RUNS


def figures(rounds: int, objects: int) -> dict[str, Any]:
    heap = filled(objects)
    inherited, census = inheritance()
    starts = [in_fork(lambda: start_milliseconds(inherited, census)) for _ in range(rounds)]
    runs = in_fork(lambda: run_microseconds(inherited, census, rounds))
    return {"objects": len(gc.get_objects()), "starts": starts, **runs, "extra": len(heap)}


def measure(options: Options) -> list[Row]:
    rows = []
    for extra in EXTRA_OBJECTS[:1] if options.least else EXTRA_OBJECTS:
        options.progress.tell(f"child: with {extra:,} extra objects")
        found = in_fresh_process(__name__, options.rounds, extra)
        heap = f"{found['objects']:,} objects"
        for what, name, unit, target in (
            ("a child's start", "starts", "ms", START_TARGETS_MS[extra]),
            ("a plain run, in a loop", "loop", "µs", LOOP_TARGET_US),
            ("a plain run, once per wake-up", "wake", "µs", WAKE_TARGET_US),
        ):
            met = statistics.median(found[name]) <= target
            figure = f"{spread(found[name])} {unit} of CPU"
            rows.append(Row(f"{what}, {heap}", figure, "", f"≤ {target:g} {unit}", met))
    return rows


PART = Part("a pool child: its start, and a run that is not audited", measure, rounds=15)

if __name__ == "__main__":
    print(json.dumps(figures(*map(int, sys.argv[1:]))))
