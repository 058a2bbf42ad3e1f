"""What users have today: resident memory over time, and a trend test. The zoo prints it beside our
own verdicts.

The worker is accused when a Mann-Kendall test and the lower bound of a Theil-Sen slope agree that
it grows, by 5 MB at least. Resident memory names a process, never a task; so that attribution can
be compared at all, the task with the largest net growth of resident memory over its runs is taken
as named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

#: Two-sided 1 % of the normal distribution, for both tests.
Z = 2.576
LEAST_GROWTH_BYTES = 5_000_000
LEAST_SAMPLES = 8


@dataclass(frozen=True)
class Trend:
    fired: bool
    z: float
    #: Bytes a second: the slope's lower bound.
    slope_low: float
    growth_bytes: float


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """Judges samples in the order of their times (seconds, bytes)."""
    if len(values) < LEAST_SAMPLES:
        return Trend(False, 0.0, 0.0, 0.0)
    pairs = [(i, j) for j in range(len(values)) for i in range(j)]
    score = sum((values[j] > values[i]) - (values[j] < values[i]) for i, j in pairs)
    spread = math.sqrt(variance(values))
    z = (score - math.copysign(1, score)) / spread if score and spread else 0.0
    slopes = sorted((values[j] - values[i]) / (times[j] - times[i]) for i, j in pairs)
    middle = slopes[len(slopes) // 2]
    # Sen (1968): the rank of the slope's lower bound follows from the spread of Kendall's score.
    low = slopes[max(0, int((len(slopes) - Z * spread) / 2))]
    growth = middle * (times[-1] - times[0])
    return Trend(z > Z and low > 0 and growth >= LEAST_GROWTH_BYTES, z, low, growth)


def variance(values: Sequence[float]) -> float:
    """Of Mann-Kendall's score, with its correction for ties."""

    def part(n: int) -> int:
        return n * (n - 1) * (2 * n + 5)

    ties = {value: values.count(value) for value in values}
    return (part(len(values)) - sum(part(count) for count in ties.values())) / 18


def resident(pid: int) -> int:
    """RSS of a worker, its main process and its children summed, in bytes: what a container's graph
    shows."""
    total = 0
    main = psutil.Process(pid)
    for process in (main, *main.children()):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def likeliest(growth: Mapping[str, float], release: Mapping[str, float]) -> str | None:
    """The task whose runs added the most resident memory, net; by task name, in bytes."""
    net = {task: growth[task] - release.get(task, 0.0) for task in growth}
    task = max(net, key=lambda each: net[each], default=None)
    return task if task is not None and net[task] > 0 else None
