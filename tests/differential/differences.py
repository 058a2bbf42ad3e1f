"""What may differ with the agent, each with its reason and where docs/what-the-agent-changes.md
tells it. Everything else has to be equal."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.differential.behaviour import GREENLETS, POOLS

#: Pools whose runs are audited.
AUDITED = ("prefork", "solo")
PREFORK = ("prefork",)
#: What a worker has imported with the agent only, beside the standard library's.
IMPORTED = {"celery_memory_exporter", "objgraph"}


def anything(seen: Any) -> Any:
    return None


@dataclass(frozen=True, slots=True)
class Difference:
    """``section`` of the document; ``alike`` is what is equal all the same."""

    section: str
    reason: str
    alike: Callable[[Any], Any] = anything
    pools: tuple[str, ...] = AUDITED
    #: How often which value comes is chance, with and without the agent: only that it comes counts.
    chance: bool = False


def whether_lost(seen: Any) -> Any:
    return seen == "lost"


def functions_above_work(seen: str | None) -> Any:
    """Of a traceback, down to where the exception arrived."""
    names = re.findall(r", in (\w+)\n", seen or "")
    return names[: names.index("work")] if "work" in names else None


def chance(reason: str, alike: Callable[[Any], Any]) -> Difference:
    return Difference("", reason, alike, POOLS, chance=True)


GARBAGE = "The garbage collector"
TRACING = "tracemalloc and line tracing"
PROCESS = "Threads, descriptors and modules"

DIFFERENCES: dict[str, Difference] = {
    "collector.churn.threshold": Difference(
        GARBAGE,
        "audited runs of types that allocate much are opened with raised thresholds",
        lambda seen: seen[0],
    ),
    "collector.churn.enabled": Difference(
        GARBAGE, "from Python 3.14 on the collector is off during an audited run"
    ),
    "collector.collections_between_runs.generations": Difference(
        GARBAGE, "an audit collects before and after its run", pools=POOLS
    ),
    "collector.finalizers.died": Difference(
        GARBAGE,
        "garbage with cycles is freed when an audited run ends, not at some later time",
        pools=POOLS,
    ),
    "collector.finalizers.here": Difference(
        GARBAGE,
        "in the thread whose allocation starts a collection, of whatever it is",
        pools=("threads", *GREENLETS),
    ),
    "collector.weak_cache_of_cycles.hit": Difference(
        GARBAGE,
        "an object with cycles that only weak references lead to goes with the run",
        pools=POOLS,
    ),
    "tools.tracing_by_nobody.tracing": Difference(
        TRACING, "a deep audit traces its run by tracemalloc"
    ),
    "tools.tracing_by_nobody.start": Difference(
        TRACING, "within such a run tracemalloc.start is a function of the agent's"
    ),
    "tools.tracemalloc_started_by_a_name_of_before.frames": Difference(
        TRACING, "a start that was imported by name does nothing while the agent traces"
    ),
    "tools.tracemalloc_started_by_a_name_of_before.tracing": Difference(
        TRACING, "and the agent ends what it takes for its own"
    ),
    "tools.tracer_of_nobody.tracer": Difference(
        TRACING, "a deep audit of descriptors, threads and C memory follows lines by sys.settrace"
    ),
    "running.what_a_failure_held.died": Difference(
        GARBAGE, "what a failed run's traceback refers to is freed when an audited run ends"
    ),
    "running.a_lock_that_a_finalizer_takes.got": Difference(
        GARBAGE, "the finalizer is called while the lock is still held, or after it"
    ),
    "processes.fork.threads": Difference(
        PROCESS, "the helper thread of a child, until a task type has forked once", pools=PREFORK
    ),
    "processes.fork.warned": Difference(
        PROCESS, "Python 3.12 and later warn of a fork beside another thread", pools=PREFORK
    ),
    "running.threads.names": Difference(
        PROCESS,
        "the helper thread of a child",
        lambda seen: [name for name in seen if name != "celery-memory-agent"],
        PREFORK,
    ),
    "processes.descriptors.open": Difference(PROCESS, "the agent has some of its own", pools=POOLS),
    "processes.descriptors.number": Difference(
        PROCESS, "the lowest free number is another one", pools=POOLS
    ),
    "processes.high_water_mark.fell": Difference(
        PROCESS, "the mark is set back before each run", pools=POOLS
    ),
    "running.modules.modules": Difference(
        PROCESS,
        "the agent's modules, and those of the standard library that it imports",
        lambda seen: [
            name for name in seen if name not in IMPORTED and name not in sys.stdlib_module_names
        ],
        POOLS,
    ),
    "running.current.task": Difference(
        PROCESS,
        "each task has a Request class of its own",
        lambda seen: [name for name in seen if name != "Request"],
        POOLS,
    ),
    "told.kind": Difference(
        PROCESS,
        "which is derived from the application's",
        lambda seen: [name for name in seen if name != "CountedRequest"],
        POOLS,
    ),
    "running.recursion.depth": Difference(
        PROCESS, "one more frame; and by chance the pool starts a child deeper", pools=POOLS
    ),
    "interruptions.alarm_that_nobody_catches.traceback": chance(
        "the line that it arrives at", functions_above_work
    ),
    "interruptions.soft_time_limit.arrived": chance("it may come before the task", whether_lost),
    "interruptions.soft_time_limit.status": chance("it may come before the task", anything),
    "interruptions.soft_time_limit.result": chance("it may come before the task", anything),
    "interruptions.soft_time_limit.traceback": chance("it may come before the task", anything),
    "interruptions.soft_time_limit_that_nobody_catches.traceback": chance(
        "the line that it arrives at, and it may come before the task", anything
    ),
    "tools.frames.stack": Difference(
        PROCESS,
        "each task has one more frame below it",
        lambda seen: seen[: seen.index("trace_task")],
        POOLS,
    ),
}
