"""Tier 1: audited runs, exact to the block.

The collector sets the run's objects apart from all older ones (``collector``), Python's free lists
are full at both ends (``free_lists``): the difference of live blocks and of the C heap's bytes is
what the run left behind, and its survivors are listed by type. No page and no reference count of
the older heap is touched.

* Never while runs overlap in the process, nor while the application debugs its collector.
* A run that did something to the collector, or began to trace or profile, says nothing, and is
  counted by what it did.
* An old object that the run replaced is garbage if it has cycles, and waits for a full collection:
  it still counts. So what seems to be left behind is confirmed by audits that free all garbage at
  both ends. A type whose runs do replace such objects is audited in no other way; nor is one of
  which plain audits see what three confirming ones in turn do not: tuples that wait in Python's
  lists to be used again.
* Time for audits is a share of the process's busy time; a task type's audits get rarer with their
  number, so rare types are audited in each run and frequent ones some times the square root of
  their runs. Whatever is left of that time, a few runs of each age past start-up are audited: what
  goes on in an old process must not be guessed from what it did when it was young.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from array import array
from collections import Counter
from tracemalloc import is_tracing as tracing
from typing import Any

from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.audit import survivors
from celery_memory_exporter.agent.audit.collector import OLD, Collector
from celery_memory_exporter.agent.audit.ends import Ends
from celery_memory_exporter.agent.audit.finding import Finding
from celery_memory_exporter.agent.heap.census import MAX_NAME_LENGTH
from celery_memory_exporter.agent.stats import free_lists
from celery_memory_exporter.agent.stats.budget import Account, Budget, Entry, new_account
from celery_memory_exporter.agent.stats.growth import CONFIRMATIONS, TaskProfile
from celery_memory_exporter.agent.stats.profile import WARM_AGE
from celery_memory_exporter.agent.stats.readings import Readings

SHARE = 0.01
#: Some eight hundred audits: a young process has answers soon, also where its tasks are many and
#: short.
CREDIT_SECONDS = 0.2
#: What audits by right may take beyond the budget, in a pool slot's whole life: some four hundred.
MOST_OWED = 0.1
#: After so many audits of a type, every second run is audited; after twice as many, every third.
AUDITS_PER_STEP = 20
#: For audits that free all garbage at both ends: a share of the process's busy time, and a credit
#: (of a pool slot, and only where something is suspected) for so many of them, in seconds between
#: these two. Readings of nothing, once in a pool slot's life, are not in it.
CONFIRMING_SHARE, CONFIRMING_CREDIT = 0.005, 12
LEAST_CREDIT_SECONDS, MOST_CREDIT_SECONDS = 0.5, 2.0
#: What a full collection costs, by the live blocks of the heap (measured: 0.2 s at 3.5 million).
SECONDS_PER_BLOCK = 60e-9
#: A suspect's first ``CONFIRMATIONS`` audits are confirmed, and one of so many later ones: a cache
#: replaces nothing until it is full.
AUDITS_PER_CONFIRMATION = 8
#: Of what they read of nothing; where no two agree, nothing is confirmed yet.
MOST_CALIBRATIONS = 5
#: The lists that nearly all code takes from: full at both ends of confirming audits, and wherever
#: another one has to be.
SMALL_TUPLES = frozenset(range(1, 5))
#: Blocks that a run seems to leave behind from which on lists of free tuples are looked at, so many
#: times for each type.
MANY_BLOCKS, MOST_LOOKS = 2 * free_lists.WAITING, 3
#: Bytes: enough for the names of all types of an audit, each letter of them escaped.
TYPES_ROOM = survivors.TYPES_PER_AUDIT * (MAX_NAME_LENGTH * len("\\u1234") * 2 + 32)
#: Whether ``tracemalloc`` is at work, and who is called for each line and each call.
TRACING, TRACE, PROFILE = TOOLS = range(3)


class Auditor:
    """Audits the runs of one process, one at a time."""

    def __init__(
        self,
        readings: Readings,
        account: Account | None = None,
        *,
        enabled: bool,
        own: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """``own``: blocks that a run of nothing seems to leave behind, which fails or succeeds."""
        self.enabled = enabled
        self._account = account = new_account() if account is None else account
        self.budget = Budget(SHARE, CREDIT_SECONDS, account, Entry.AUDITS)
        self.confirming = Budget(CONFIRMING_SHARE, 0.0, account, Entry.CONFIRMATIONS)
        #: Seconds; none until something is to be confirmed.
        self._confirming_credit = 0.0
        self.audits = 0
        self._own = own
        self._confirms = False
        self._ends = Ends(readings)
        self._random = random.Random()  # noqa: S311  # not the application's, and no secret
        self._collector = Collector()
        #: Audits that said nothing, by what the application did meanwhile.
        self.discarded: Counter[str] = Counter()
        self._opened = False
        self._types, self._size = bytearray(TYPES_ROOM), array("q", [0])
        self._tools = array("q", bytes(8 * len(TOOLS)))

    def due(self, profile: TaskProfile, age: int, types: int, busy_seconds: float) -> bool:
        """Whether the run of this type and age that begins now is to be audited. ``types`` is how
        many task types there are."""
        if not self.enabled or profile.runs < profile.next_audit:
            return False
        if gc.get_debug() or (profile.replaces and not self._may_confirm(busy_seconds)):
            return False
        if profile.puts_off(gc.get_stats()[OLD]["collections"]):
            return False
        left = self.budget.left(busy_seconds)
        # What goes on is told by runs past start-up, and rare types have few.
        frequent = age < WARM_AGE or types * profile.audits > self.audits
        scarce = left < CREDIT_SECONDS / 10 and frequent
        if (left <= 0 or scarce) and not (left > -MOST_OWED and profile.take_right(age)):
            return False
        # By chance, since a task may do in every second run what it undoes in the next.
        profile.next_audit = profile.runs + self._random.randint(
            1, 1 + 2 * (profile.audits // AUDITS_PER_STEP)
        )
        return True

    def confirms(self, profile: TaskProfile, busy_seconds: float, suspected: bool) -> bool:
        """Whether the audit that begins now is to free all garbage at both ends. ``suspected``: the
        type's runs seem to leave something behind."""
        share = CONFIRMATIONS + profile.audits // AUDITS_PER_CONFIRMATION
        wanted = suspected and profile.confirmations < share
        if not profile.replaces and not (wanted and self._may_confirm(busy_seconds)):
            return False
        if not self._account[Entry.BIAS_KNOWN]:
            self._calibrate()
        return bool(self._account[Entry.BIAS_KNOWN])

    def _may_confirm(self, busy_seconds: float) -> bool:
        if not gc.isenabled():
            return False
        if not self._confirming_credit:
            credit = CONFIRMING_CREDIT * cost_of_confirming()
            self._confirming_credit = min(max(credit, LEAST_CREDIT_SECONDS), MOST_CREDIT_SECONDS)
        left = self.confirming.left(busy_seconds) + self._confirming_credit
        return left > 0 and left >= cost_of_confirming()

    def begin(self, profile: TaskProfile, *, confirm: bool = False) -> None:
        """Takes the opening readings; the run has to follow at once."""
        begun = time.thread_time()
        # Before all objects are made old: a set made later would be a survivor.
        self._ends.tuples = profile.tuples | SMALL_TUPLES if confirm else profile.tuples
        self._opened, self._confirms = True, confirm
        self._collector.open(quiet=profile.quiet, full=self._confirms)
        if self._confirms:
            self.confirming.spend(time.thread_time() - begun)
            begun = time.thread_time()
        self._tools[TRACING], self._tools[PROFILE] = tracing(), id(sys.getprofile())
        self._tools[TRACE] = id(sys.gettrace())
        self._ends.open()
        self.budget.spend(time.thread_time() - begun)
        self._ends.open_heap()

    def finish(self, profile: TaskProfile, answer: Any) -> Finding | None:
        """Takes the closing readings; ``None`` when they say nothing. ``answer`` is of the run, and
        no survivor."""
        begun = time.thread_time()
        if not self._opened:
            return None
        self._ends.close_heap()
        disturbance, collected = self._collector.close()
        disturbance = disturbance or self._watched()
        if collected:
            del collected  # a number above 256 is an object
            self._ends.close_without_garbage()
        self._opened = False
        if disturbance is not None:
            self.discarded[disturbance] += 1
            profile.quiet = profile.quiet or disturbance == "collected"
            return None
        self._ends.close()
        self._write_types(survivors.by_type(answer))
        if self._collector.promoted:
            profile.quiet = True
            self._free_promoted()
        filled = self._has_filled_lists(profile)
        self.budget.spend(time.thread_time() - begun)
        if self._confirms:
            self._free_replaced(profile, answer.info is None)
        else:
            profile.seemed[answer.info is None] = self._left(answer.info is None)
        if filled:
            self.discarded["free_tuples"] += 1
            return None
        self.audits += 1
        return self._ends.finding(json.loads(self._types[: self._size[0]]))

    def _write_types(self, types: dict[str, int]) -> None:
        """As text in a room of its own: another reading may follow, in which names and numbers
        would be objects."""
        text = json.dumps(types).encode()
        self._types[: len(text)] = text
        self._size[0] = len(text)

    def _free_promoted(self) -> None:
        """Where that was garbage, it was among the survivors: which types are none is not known."""
        if self._collector.free_promoted():
            self._ends.close_without_garbage()
            self._write_types({})

    def _has_filled_lists(self, profile: TaskProfile) -> bool:
        """Whether much of what the run seems to leave behind may be tuples that wait to be used
        again. From now on the lists that they wait in are full at both ends."""
        if self._ends.blocks() < MANY_BLOCKS or profile.looks >= MOST_LOOKS:
            return False
        profile.looks += 1
        waiting = free_lists.tuples_waiting()
        if waiting <= profile.tuples:
            return False
        profile.tuples |= waiting | SMALL_TUPLES
        return True

    def _free_replaced(self, profile: TaskProfile, succeeded: bool) -> None:
        """Reads again without the old objects that the run has replaced and that have cycles, and
        without what lies in lists of free tuples: that is not left behind."""
        begun = time.thread_time()
        replaced = self._collector.free_all()
        bias = self._account[Entry.BIAS_NATIVE], self._account[Entry.BIAS_BLOCKS]
        self._ends.close_confirmed(*bias)
        left = self._left(succeeded)
        self.confirming.spend(time.thread_time() - begun)
        profile.confirm(succeeded, left, replaced)

    def _left(self, succeeded: bool) -> float:
        """Blocks that the run seems to leave behind."""
        return self._ends.left() - self._own[succeeded]

    def _calibrate(self) -> None:
        """Measures what a confirming audit reads more than a plain one, by audits of nothing. What
        was read twice is believed: once, another thread may have had its share."""
        nothing, answer = TaskProfile(), trace_ok_t(None, None, 0.0, "")
        spent, read = self.confirming.spent, list[tuple[float, float]]()
        for _ in range(MOST_CALIBRATIONS):
            found = []
            for confirm in (False, True):
                self.begin(nothing, confirm=confirm)
                found.append(self.finish(nothing, answer))
            plain, full = found
            if plain is None or full is None:
                return
            more = full.native - plain.native, full.blocks - plain.blocks
            if more in read:
                self._account[Entry.BIAS_NATIVE], self._account[Entry.BIAS_BLOCKS] = more
                self._account[Entry.BIAS_KNOWN] = 1.0
                self.confirming.spend(spent - self.confirming.spent)
                return
            read.append(more)

    def abandon(self) -> None:
        """Leaves the collector as it was, whatever happened."""
        self._opened = False
        self._collector.abandon()

    def _watched(self) -> str | None:
        """What the application began to watch the run by. (A watch of the agent's may end within a
        run, so a tracer that is gone is no sign.)"""
        if tracing() != self._tools[TRACING]:
            return "tracemalloc"
        if id(sys.getprofile()) != self._tools[PROFILE]:
            return "profile"
        trace = sys.gettrace()
        return "trace" if trace is not None and id(trace) != self._tools[TRACE] else None


def cost_of_confirming() -> float:
    """Seconds of two full collections of this heap. To count its blocks walks all of its pools."""
    return 2 * SECONDS_PER_BLOCK * sys.getallocatedblocks()
