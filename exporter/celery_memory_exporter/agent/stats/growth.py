"""What the runs of one task type left behind in one process: booked run by run, at each run's age.

Adding finds its column by a number of this module, bound once (see ``row``).
"""

from __future__ import annotations

import sys
import time
from bisect import bisect_right
from collections.abc import Mapping

from celery_memory_exporter.agent.stats.profile import WARM_AGE, WIDTH, Column, Failed, ProfileRow
from celery_memory_exporter.common.evidence import AGES, WARM_RUNS
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

#: Of task types that run seldom: after so long, and this many runs, start-up is over.
WARM_SECONDS = 60.0
WARM_RUNS_AT_LEAST = 5

#: What the interpreter's free lists may take in one run (2,000 tuples of each small size, most of
#: all), more so since audits empty them. They give nothing back in a run that no collection falls
#: into, so fewer blocks tell of memory that a run freed.
FREE_LIST_BYTES = 256 * 1024
DROP_BLOCKS = 16
#: Free lists are not in the C heap, whose own caches are smaller.
LARGE_NATIVE_BYTES = 64 * 1024
#: Of each age of a process past start-up, and of each task type: a millisecond or two.
AUDITS_BY_RIGHT = 4
#: Confirming audits that in turn find nothing of what seemed to be left behind.
CONFIRMATIONS = 3
#: Blocks: what a run leaves behind that leaves anything.
LEAST_LEFT = 0.5
#: Old garbage that is more than chance: so many objects, and this share of what seemed to be left
#: behind. A connection that is made anew, once, must not cost a leak its audits.
REPLACED_OBJECTS, REPLACED_SHARE = 4, 0.5
#: A full collection empties Python's lists of free tuples, and the runs after it fill them: they
#: would seem to leave something behind. So many of them pass without an audit, but only before
#: every second one: rare types have a full collection between any two runs.
RUNS_TO_REFILL = 4
#: Object types told per task type.
MAX_TYPES = 40

_RUNS, _AUDITED = int(Column.RUNS), int(Column.AUDITED)
_BLOCKS, _NATIVE, _SQUARES = int(Column.BLOCKS), int(Column.NATIVE), int(Column.SQUARES)
_LARGE, _LARGE_SQUARES = int(Column.LARGE), int(Column.LARGE_SQUARES)
_FDS, _THREADS, _CHILDREN = int(Column.FDS), int(Column.THREADS), int(Column.CHILDREN)
_SHARED, _SHARED_RISES = int(Column.SHARED), int(Column.SHARED_RISES)
_GARBAGE_BLOCKS, _GARBAGE_NATIVE = int(Column.GARBAGE_BLOCKS), int(Column.GARBAGE_NATIVE)
_SAMPLED, _SAMPLED_BYTES = int(Column.SAMPLED), int(Column.SAMPLED_BYTES)
_SAMPLED_SQUARES = int(Column.SAMPLED_SQUARES)


class TaskProfile:
    """The profile of one task type in one process, and what its next audit is decided by."""

    __slots__ = (
        "_age",
        "_age_ends",
        "_jump",
        "_rights",
        "_rights_age",
        "_runs_at",
        "audits",
        "collections",
        "confirmations",
        "cpu_seconds",
        "looks",
        "next_audit",
        "plain_runs",
        "plain_until",
        "quiet",
        "refilled",
        "replaces",
        "row",
        "runs",
        "seemed",
        "since",
        "survivors",
        "tuples",
        "vanished",
    )

    def __init__(self) -> None:
        self.audits = 0
        #: Of the process during audited runs.
        self.cpu_seconds = 0.0
        #: Whether its runs allocate so much that the collector must be quiet for an audit.
        self.quiet = False
        #: Lists of free tuples, by their size, that its audits have to fill; and how often one has
        #: looked for such.
        self.tuples: frozenset[int] = frozenset()
        self.looks = 0
        #: Full collections when an audit was last due, and whether it was put off so that runs fill
        #: the interpreter's free lists again.
        self.collections: int | None = None
        self.refilled = False
        #: Audits that freed old garbage at both ends.
        self.confirmations = 0
        #: The last so many of them found nothing of what had seemed to be left behind.
        self.vanished = 0
        #: Blocks that the last plain audits seemed to leave behind, of a run that failed and of one
        #: that succeeded; ``None`` when there was none since a confirming one.
        self.seemed: list[float | None] = [None, None]
        #: Whether its runs replace old objects that only a full collection frees.
        self.replaces = False
        #: Objects that outlived audited runs after start-up, by type.
        self.survivors: dict[str, int] = {}
        #: Monotonic seconds at which the type was first seen.
        self.since = time.monotonic()
        self.forget_runs()

    def forget_runs(self) -> None:
        """As if the type had not run yet."""
        self.row = ProfileRow()
        self.runs = 0
        #: The run that may be audited next.
        self.next_audit = 0
        #: Runs before this one, and before this time, are neither audited nor read: there was no
        #: time left for it.
        self.plain_runs, self.plain_until = 0, 0.0
        self._age = self._age_ends = self._jump = 0
        self._runs_at = _RUNS
        self._rights = self._rights_age = 0

    def begin(self) -> int:
        """Counts a run; the answer is its age, as a place among ``AGES``."""
        self.runs = runs = self.runs + 1
        if runs > self._age_ends:
            self._find_age()
        self.row.figures[self._runs_at] += 1
        return self._age

    def _find_age(self) -> None:
        before = self.runs - 1
        if (
            not self._jump
            and before >= WARM_RUNS_AT_LEAST
            and time.monotonic() - self.since >= WARM_SECONDS
        ):
            self._jump = max(0, WARM_RUNS - before)
        age = bisect_right(AGES, before + self._jump) - 1
        if age != self._age:
            self._age, self._runs_at = age, age * WIDTH + _RUNS
            self.plain_until = 0.0
        if self.starting:
            self._age_ends = self.runs  # the time may end start-up before the next run
        else:
            self._age_ends = AGES[age + 1] - self._jump if age + 1 < len(AGES) else sys.maxsize

    @property
    def starting(self) -> bool:
        """Whether its runs still are of start-up."""
        return self.runs + self._jump < WARM_RUNS

    @property
    def cpu_per_audit(self) -> float:
        return self.cpu_seconds / max(1, self.audits)

    def take_right(self, age: int) -> bool:
        """Takes one of the audits that each age past start-up has, whatever the budget says;
        whether there was one left."""
        if age < WARM_AGE:
            return False
        if age != self._rights_age:
            self._rights_age, self._rights = age, AUDITS_BY_RIGHT
        self._rights -= 1
        return self._rights >= 0

    def puts_off(self, collections: int) -> bool:
        """Whether the audit that is due now is put off, because the collector has made full
        ``collections`` since one was due before."""
        before, self.collections = self.collections, collections
        if before in (None, collections) or self.refilled or self.replaces:
            self.refilled = False
            return False
        self.refilled, self.next_audit = True, self.runs + RUNS_TO_REFILL
        return True

    def confirm(self, succeeded: bool, left: float, replaced: int) -> None:
        """An audit without old garbage: blocks that its run ``left``, and so many objects that it
        ``replaced``."""
        self.confirmations += 1
        # Not what this one seemed to leave behind: that it has freed what waited in lists before
        # the run, too, makes that more. And each plain audit speaks once, of runs that end alike.
        seemed, self.seemed[succeeded] = self.seemed[succeeded], None
        if self.replaces or seemed is None:
            return
        gone = seemed >= LEAST_LEFT and left <= REPLACED_SHARE * seemed
        self.vanished = self.vanished + 1 if gone and left < LEAST_LEFT else 0
        if (gone and replaced >= REPLACED_OBJECTS) or self.vanished >= CONFIRMATIONS:
            self.forget_audits()

    def forget_audits(self) -> None:
        """Its runs replace old objects: what audits have told so far was wrong. The runs themselves
        stay counted."""
        self.row = self.row.without_audits()
        self.replaces = True
        self.audits = self.next_audit = 0
        self.survivors.clear()

    def add_audit(self, age: int, blocks: float, native: float) -> None:
        """What an audited run of this age left behind."""
        self.audits += 1
        figures, start = self.row.figures, age * WIDTH
        size = blocks * MEAN_BLOCK_BYTES + native
        square = size * size
        if is_large(size, blocks, native):
            figures[start + _LARGE] += size
            figures[start + _LARGE_SQUARES] += square
        figures[start + _AUDITED] += 1
        figures[start + _BLOCKS] += blocks
        figures[start + _NATIVE] += native
        figures[start + _SQUARES] += square

    def add_kernel(
        self, age: int, fds: float, threads: float, children: float, shared: float
    ) -> None:
        """What an audited run left open or running, and bytes of shared memory."""
        figures, start = self.row.figures, age * WIDTH
        figures[start + _FDS] += fds
        figures[start + _THREADS] += threads
        figures[start + _CHILDREN] += children
        figures[start + _SHARED] += shared
        if shared > 0:
            figures[start + _SHARED_RISES] += 1

    def add_garbage(self, age: int, blocks: float, native: float) -> None:
        """What the collector found in an audited run."""
        figures, start = self.row.figures, age * WIDTH
        figures[start + _GARBAGE_BLOCKS] += blocks
        figures[start + _GARBAGE_NATIVE] += native

    def add_failed(self, blocks: float, native: float) -> None:
        """What an audited run left behind that did not succeed."""
        figures = self.row.figures
        figures[Failed.AUDITS] += 1
        figures[Failed.BLOCKS] += blocks
        figures[Failed.NATIVE] += native

    def add_sample(self, age: int, blocks: float, native: float, *, only_large: bool) -> None:
        """A run that was read without an audit. ``only_large``: where audits tell the rest."""
        figures, start = self.row.figures, age * WIDTH
        figures[start + _SAMPLED] += 1
        size = blocks * MEAN_BLOCK_BYTES + native
        if is_large(size, blocks, native) or not only_large:
            figures[start + _SAMPLED_BYTES] += size
            figures[start + _SAMPLED_SQUARES] += size * size

    def add_survivors(self, counts: Mapping[str, int]) -> None:
        """Objects that outlived an audited run, by type."""
        for name, count in counts.items():
            if name in self.survivors or len(self.survivors) < MAX_TYPES:
                self.survivors[name] = self.survivors.get(name, 0) + count


def is_large(size: float, blocks: float, native: float) -> bool:
    """Whether so many bytes, of so many blocks and so many of the C heap, are more than free lists
    and caches explain."""
    return size >= FREE_LIST_BYTES or abs(native) >= LARGE_NATIVE_BYTES or blocks <= -DROP_BLOCKS
