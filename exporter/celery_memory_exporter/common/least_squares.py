"""Shares of memory growth by task type where a single run cannot be measured, by least squares over
intervals.

Where runs overlap in one process (threads, gevent, eventlet), and for what a worker's children
share (files in tmpfs), only totals exist: growth of an interval = sum over task types of runs x
share + a background + noise. Figures below are from simulation: five task types, 60 to 120
intervals, in-flight memory from nothing to spikes of 10 MB; and event-driven pools.

* **Noise has two parts.** Memory in flight when a reading is taken enters one interval and leaves
  in the next: *jitter* of readings. Growth for other reasons stays: *drift*. Plain least squares on
  intervals takes all for drift; its errors were two to three times larger, and in pools it blamed
  task types for what runs in flight beside them (innocent shares were more than three errors off
  zero in 3 to 22 of 50 lives, against 0 to 2). So the covariance is modelled (``pivots_of``), with
  the ratio of both parts that is likeliest.
* **What is taken back is no growth.** An outlying rise that a later interval within ``SPAN`` takes
  back is memory in flight: the intervals from the one to the other are merged, which loses nothing
  but resolution.
* **One step is no rate.** Outliers that stay are left out while they are few, and are growth like
  any other when they recur: a leak in one run of fifty is made of nothing else. Weights by size
  (Huber) would take such a leak for noise.
* **A background column, never penalised.** Without it, growth of the worker itself falls to
  innocent task types (33 of 50 lives); with it, errors are a tenth larger, and more where counts
  hardly vary. Idle intervals are its evidence and are kept, those that follow one another as one.
* **Intervals must be longer than runs, and end by time.** A run in flight over several readings is
  neither jitter nor drift: where most were, 15 of 100 lives accused somebody. Intervals of a fixed
  number of runs make the background the sum of the types.
* **What always runs together cannot be told apart**, and neither can what runs equally often in all
  intervals from the background: the error is infinite then, never a confident wrong answer.

Pure: no clock, no I/O, numbers only. ``intervals`` says which intervals of a life there are, and
whose the shares are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import mul
from statistics import median
from typing import TypeAlias

#: Jitter of a reading by drift of one interval (variances) that are tried. Never infinite: trusting
#: that nothing drifts makes a small drift a confident wrong share.
RATIOS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
#: An interval is an outlier this many (robust) standard deviations off: at 128 normal intervals
#: none is by chance.
OUTLYING = 5.0
#: In how many of the next intervals a rise may be taken back and count as memory in flight.
SPAN = 4
#: One in so many intervals may be left out as a single step.
STEPS = 32
#: Rounds, at most, of leaving out outliers and choosing the ratio of the noise, each with the
#: shares found in the one before.
ROUNDS = 4
#: Added to the diagonal of the scaled normal equations (whose entries are at most 1), so that they
#: can be solved at all ...
RIDGE = 1e-12
#: ... and a column that the others explain up to this share of its squares cannot be told from
#: them.
UNEXPLAINED = 1e-8

#: One interval: per task type its runs, then how many intervals were merged into it, then how much
#: memory grew in it.
Observation: TypeAlias = "list[float]"


@dataclass(frozen=True, slots=True)
class Solution:
    """Shares and their errors, the background's last, and what they leave unexplained of each
    interval."""

    shares: list[float]
    errors: list[float]
    residuals: list[float]


def shares_of(observations: list[Observation]) -> tuple[Solution, Solution]:
    """The shares from all intervals, and those from their later half under the same model of the
    noise."""
    drifts = [each[-2] for each in observations]
    ratio = 0.0
    for _ in range(ROUNDS):
        solution = solve(observations, drifts, ratio)
        before = len(observations), ratio, drifts.count(math.inf)
        observations, drifts = without_outliers(observations, solution.residuals)
        if len(observations) == before[0]:
            ratio = likeliest_ratio(solution.residuals, drifts)
        if (len(observations), ratio, drifts.count(math.inf)) == before:
            break
    half = len(observations) // 2
    return solve(observations, drifts, ratio), solve(observations[half:], drifts[half:], ratio)


def without_outliers(
    observations: list[Observation], residuals: list[float]
) -> tuple[list[Observation], list[float]]:
    """The intervals with those merged between which memory was in flight, and their drift: infinite
    for a single step."""
    sizes = [abs(residual) for residual in residuals]
    # The floor is for data without any noise, where rounding errors would be outliers.
    limit = max(
        OUTLYING * 1.4826 * median(sizes), 1e-9 * max(abs(each[-1]) for each in observations)
    )
    result: list[Observation] = []
    steps: list[int] = []
    at = 0
    while at < len(observations):
        end = at
        if sizes[at] > limit:
            end = next(
                (
                    to
                    for to in range(at + 1, min(at + 1 + SPAN, len(observations)))
                    if cancels(residuals[at], residuals[to])
                ),
                at,
            )
            if end == at:
                steps.append(len(result))
        result.append([sum(column) for column in zip(*observations[at : end + 1], strict=True)])
        at = end + 1
    few = len(steps) <= max(1, len(observations) // STEPS)
    return result, [
        math.inf if few and index in steps else each[-2] for index, each in enumerate(result)
    ]


def cancels(rise: float, fall: float) -> bool:
    """Whether the one takes back most of the other, in whichever order."""
    return abs(rise + fall) < abs(rise) / 2


def pivots_of(drifts: list[float], ratio: float) -> list[float]:
    """The variance of each interval's noise given the noise of those before it, in units of one
    interval's drift: the pivots of the covariance's decomposition.

    The covariance has ``drift + 2 ratio`` on its diagonal and ``-ratio`` beside it: neighbours
    share a reading.
    """
    pivots = []
    pivot = math.inf
    for drift in drifts:
        pivot = drift + 2 * ratio - ratio * ratio / pivot
        pivots.append(pivot)
    return pivots


def whitening(pivots: list[float], ratio: float) -> list[tuple[float, float]]:
    """Per interval, how much of the one before has to be added, and by what the sum has to be
    multiplied, so that the noise of all intervals is independent and equal."""
    return [
        (ratio / before, 1 / math.sqrt(pivot))
        for before, pivot in zip([math.inf, *pivots], pivots, strict=False)
    ]


def whiten(column: Iterable[float], factors: list[tuple[float, float]]) -> list[float]:
    result = []
    carried = 0.0
    for value, (share, unit) in zip(column, factors, strict=True):
        carried = value + share * carried
        result.append(carried * unit)
    return result


def likeliest_ratio(residuals: list[float], drifts: list[float]) -> float:
    """The one of ``RATIOS`` under which normal noise would most likely leave these residuals."""

    def unlikelihood(ratio: float) -> float:
        pivots = pivots_of(drifts, ratio)
        white = whiten(residuals, whitening(pivots, ratio))
        known = [pivot for pivot in pivots if pivot < math.inf]
        return len(known) * math.log(dot(white, white) or 1e-300) + sum(map(math.log, known))

    return min(RATIOS, key=unlikelihood)


def solve(observations: list[Observation], drifts: list[float], ratio: float) -> Solution:
    """Generalised least squares. Columns are scaled to length one, so that one ridge and one
    threshold fit all."""
    factors = whitening(pivots_of(drifts, ratio), ratio)
    *columns, growth = zip(*observations, strict=True)
    *white, goal = (whiten(column, factors) for column in (*columns, growth))
    lengths = [math.sqrt(dot(column, column)) or 1.0 for column in white]
    white = [
        [value / length for value in column] for column, length in zip(white, lengths, strict=True)
    ]
    inverse = inverted(products(white))
    projected = [dot(column, goal) for column in white]
    shares = [dot(row, projected) / length for row, length in zip(inverse, lengths, strict=True)]
    residuals = [each[-1] - dot(shares, each) for each in observations]
    unexplained = whiten(residuals, factors)
    spare = sum(1 for drift in drifts if drift < math.inf) - len(columns)
    noise = (
        math.sqrt(dot(unexplained, unexplained) / spare) * widening(spare)
        if spare > 0
        else math.inf
    )
    told = [spare > 0 and inverse[at][at] < 1 / UNEXPLAINED for at in range(len(columns))]
    errors = [
        noise * math.sqrt(inverse[at][at]) / lengths[at] if told[at] else math.inf
        for at in range(len(columns))
    ]
    return Solution(
        [share if known else 0.0 for share, known in zip(shares, told, strict=True)],
        errors,
        residuals,
    )


def widening(spare: int) -> float:
    """How much a standard error grows so that three of it bound 99.7 % of Student's t with so many
    spare intervals.

    Cornish and Fisher's expansion of the quantile at 3, divided by 3.
    """
    return 1 + 2.5 / spare + 5.75 / spare**2 + 10 / spare**3


def dot(one: Iterable[float], other: Iterable[float]) -> float:
    """The scalar product, over the length of the shorter one."""
    return float(sum(map(mul, one, other)))


def products(columns: list[list[float]]) -> list[list[float]]:
    """The matrix of the scalar products of each column with each."""
    lower = [[dot(one, other) for other in columns[: at + 1]] for at, one in enumerate(columns)]
    return [
        [lower[max(row, column)][min(row, column)] for column in range(len(columns))]
        for row in range(len(columns))
    ]


def inverted(matrix: list[list[float]]) -> list[list[float]]:
    """The inverse of a symmetric matrix without negative eigenvalues, to which ``RIDGE`` is added
    (Gauss and Jordan, in place)."""
    for at, row in enumerate(matrix):
        row[at] += RIDGE
    for at, lead in enumerate(matrix):
        pivot = max(lead[at], RIDGE)
        lead[at] = 1.0
        lead[:] = [value / pivot for value in lead]
        for index, row in enumerate(matrix):
            if index != at and row[at]:
                factor, row[at] = row[at], 0.0
                row[:] = [
                    value - factor * leading for value, leading in zip(row, lead, strict=True)
                ]
    return matrix
