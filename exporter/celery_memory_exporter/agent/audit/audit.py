"""Tier 1: audited runs, exact to the block.

``gc.freeze()`` takes the whole heap out of the collector's sight at no cost; after the run
``gc.collect()`` looks at what the run made and at nothing else, and empties the interpreter's free
lists as it did before the run; ``gc.get_objects()`` then lists the survivors of this run;
``gc.unfreeze()`` puts all back. Neither pages nor reference counts of the old heap are touched.

* Never while runs overlap in the process, never where the application froze its heap itself or
  debugs its collector.
* A frozen collector resets Python's counters, on which automatic full collections depend: those
  that would have come are made up for, so that old garbage is freed as it is without the agent.
* Time for audits, as the thread itself computes (on a crowded machine the scheduler's pauses are
  not its own), is a share of the process's busy time; a task type's audits get rarer with their
  number, so rare types are audited in each run and frequent ones some times the square root of
  their runs.
"""

from __future__ import annotations

import gc
import math
import random
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from celery_memory_exporter.agent.heap import census
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.readings import Readings

SHARE = 0.01
#: Some eight hundred audits: a young process has answers soon, also where its tasks are many and
#: short.
CREDIT_SECONDS = 0.2
#: After so many audits of a type, every second run is audited; after twice as many, every third.
AUDITS_PER_STEP = 20
#: Python skips most full collections, those for which the heap has not grown by a quarter; so for
#: one that is made up for, so many that would have been considered.
FULL_COLLECTIONS_OWED = 10
#: The same on a heap that is collected so fast: Python hardly skips any there.
QUICK_COLLECTIONS_OWED, QUICK_SECONDS = 2, 0.005
TYPES_PER_AUDIT = 20
#: Python 3.12 begins with 375 frozen objects of its own; an application that freezes its heap
#: freezes tens of thousands.
INTERPRETERS_OWN = 1_000
#: For threads that are about to go: a millisecond in all, and only where there are more than
#: before.
THREAD_LOOKS, THREAD_PAUSE_SECONDS = 5, 0.0002
UNKNOWN = math.nan

Survivors = list[Any]

#: The interpreter's method cache keeps up to 4,096 names that attributes were looked up by, such as
#: each text that ``pickle`` makes for a class: they would look like a block or three that each run
#: leaves behind. Its name changed with Python 3.13.
clear_type_cache = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache


#: What is read at both ends of an audited run, in an array: an object that holds a number would
#: count as left behind.
NATIVE, BLOCKS, FDS, THREADS, CHILDREN, SHARED = READINGS = range(6)


@dataclass(slots=True)
class Finding:
    """What one audited run left behind; the harness's own share is not taken off yet."""

    native: float
    blocks: float
    fds: float
    threads: float
    children: float
    shared: float
    garbage_blocks: float
    garbage_native: float
    types: dict[str, int]
    #: Kept until the run is booked, never longer.
    survivors: Survivors = field(repr=False)


class Auditor:
    """Audits the runs of one process, one at a time."""

    def __init__(self, readings: Readings, *, enabled: bool) -> None:
        self.enabled = enabled
        self.budget = Budget(SHARE, CREDIT_SECONDS)
        self.audits = 0
        self._readings = readings
        self._random = random.Random()  # noqa: S311  # not the application's, and no secret
        self._frozen = False
        self._before = array("d", bytes(8 * len(READINGS)))
        self._after = array("d", bytes(8 * len(READINGS)))
        #: Young collections that audits kept from counting towards a full one.
        self.owed = array("d", [0.0])
        #: What the last one that was made up for took.
        self._full_seconds = math.inf

    def due(self, profile: TaskProfile, types: int, busy_seconds: Callable[[], float]) -> bool:
        """Whether the run of this type that begins now is to be audited. ``types`` is how many task
        types there are."""
        if not self.enabled or profile.runs < profile.next_audit:
            return False
        left = self.budget.left(busy_seconds())
        if left <= 0 or (left < CREDIT_SECONDS / 10 and profile.audits > self.audits / types):
            return False
        if not self.usable():
            return False
        # By chance, since a task may do in every second run what it undoes in the next.
        profile.next_audit = profile.runs + self._random.randint(
            1, 1 + 2 * (profile.audits // AUDITS_PER_STEP)
        )
        return True

    def usable(self) -> bool:
        """Never again where the application froze its heap or debugs its collector."""
        if self.enabled and (gc.get_debug() or gc.get_freeze_count() > INTERPRETERS_OWN):
            self.enabled = False
        return self.enabled

    def begin(self) -> None:
        """Takes the opening readings; the run has to follow at once."""
        begun = time.thread_time()
        self._owe()  # before freezing, which sets the counts to zero
        self._frozen = True
        gc.freeze()
        gc.collect()
        clear_type_cache()
        before = self._before
        self._read_kernel(before)
        self.budget.spend(time.thread_time() - begun)
        self._readings.fill_caches()
        before[NATIVE] = self._native()
        before[BLOCKS] = sys.getallocatedblocks()

    def finish(self, answer: Any) -> Finding | None:
        """Takes the closing readings; ``None`` when they say nothing. ``answer`` is of the run, and
        no survivor."""
        begun = time.thread_time()
        if not self._frozen:
            return None
        blocks, native = sys.getallocatedblocks(), self._native()
        self._owe()
        unreachable = gc.collect()
        clear_type_cache()
        self._readings.fill_caches()
        after = self._after
        after[NATIVE] = self._native()
        after[BLOCKS] = sys.getallocatedblocks()
        self._read_kernel(after)
        self._await_threads()
        survivors = gc.get_objects()
        self.abandon()
        if _among(survivors, self):
            # Made before the run: the application has unfrozen the heap meanwhile.
            self.enabled = False
            return None
        before = self._before
        finding = Finding(
            native=_known(after[NATIVE] - before[NATIVE]),
            blocks=after[BLOCKS] - before[BLOCKS],
            fds=after[FDS] - before[FDS],
            threads=after[THREADS] - before[THREADS],
            children=after[CHILDREN] - before[CHILDREN],
            shared=after[SHARED] - before[SHARED],
            garbage_blocks=blocks - after[BLOCKS] if unreachable else 0.0,
            garbage_native=_known(native - after[NATIVE]) if unreachable else 0.0,
            types=_types(survivors, answer),
            survivors=survivors,
        )
        self.audits += 1
        self.budget.spend(time.thread_time() - begun)
        self._collect_what_is_owed()
        return finding

    def abandon(self) -> None:
        """Puts the heap back, whatever happened."""
        if self._frozen:
            gc.unfreeze()
            self._frozen = False

    def _native(self) -> float:
        native = self._readings.native_live()
        return UNKNOWN if native is None else native

    def _await_threads(self) -> None:
        """A thread that ended and was joined is listed for an instant longer."""
        for _ in range(THREAD_LOOKS):
            if self._after[THREADS] <= self._before[THREADS]:
                return
            time.sleep(THREAD_PAUSE_SECONDS)
            self._after[THREADS] = self._readings.threads()

    def _read_kernel(self, reading: array[float]) -> None:
        readings = self._readings
        reading[FDS], reading[THREADS], reading[CHILDREN] = (
            readings.fds(),
            readings.threads(),
            readings.children(),
        )
        reading[SHARED] = readings.in_memory_files()

    def _owe(self) -> None:
        _, young, middle = gc.get_count()
        self.owed[0] += young + middle * gc.get_threshold()[1]

    def _collect_what_is_owed(self) -> None:
        """In place of automatic full collections, so not on the audits' budget."""
        first, second, third = gc.get_threshold()
        considered = (
            QUICK_COLLECTIONS_OWED if self._full_seconds < QUICK_SECONDS else FULL_COLLECTIONS_OWED
        )
        if self.owed[0] > considered * second * max(1, third) and first and gc.isenabled():
            begun = time.perf_counter()
            gc.collect()
            self._full_seconds = time.perf_counter() - begun
            self.owed[0] = 0.0


def _known(difference: float) -> float:
    """Nothing where either reading is unknown."""
    return 0.0 if math.isnan(difference) else difference


def _among(survivors: Survivors, wanted: object) -> bool:
    """By identity. Not within ``finish``: a generator there would make cells, which would be
    survivors themselves."""
    return any(each is wanted for each in survivors)


def _types(survivors: Survivors, answer: Any) -> dict[str, int]:
    """The survivors by type, the most frequent ones, without the answer itself."""
    own = [type(part) for part in (answer, answer.retval, answer.info) if gc.is_tracked(part)]
    found: dict[str, int] = {}
    for kind, count in census.count_types(survivors)[:TYPES_PER_AUDIT]:
        left = count - sum(each is kind for each in own)
        if left > 0:
            name = census.type_name(kind)[: census.MAX_NAME_LENGTH]
            found[name] = found.get(name, 0) + left
    return found
