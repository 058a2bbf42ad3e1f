"""Tier 2: deep audits of suspected task types. Who holds what their runs leave behind, and on which
line was it made?

On top of an audited run, and of few of them:

* ``tracemalloc`` for the one run: bytes left behind by line; an application that traces by itself
  is left alone;
* where that sees nothing (C heap, descriptors, threads, processes, shared memory): a watch over the
  application's lines;
* the sizes of containers that grow (``containers``) before and after the run: those that the run
  made grow hold what it leaves;
* where no container does: a path of references from a survivor to a module.

All on a budget of its own. What is found is kept as names and numbers; no object of the application
is.
"""

from __future__ import annotations

import time
import tracemalloc

from celery_memory_exporter.agent.audit import survivors
from celery_memory_exporter.agent.audit.allocations import bytes_by_site, traces_of
from celery_memory_exporter.agent.audit.dossier import FEW_FRAMES, FRAMES, MAX_NAMES, Dossier
from celery_memory_exporter.agent.audit.finding import Finding
from celery_memory_exporter.agent.audit.lines import LineWatch, Reading
from celery_memory_exporter.agent.audit.suspicion import suspicion_of
from celery_memory_exporter.agent.audit.tracing import Tracing
from celery_memory_exporter.agent.heap import references
from celery_memory_exporter.agent.heap.containers import QUICK_WALKS, Probe
from celery_memory_exporter.agent.stats.budget import Account, Budget, Entry
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.profile import Column
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.stats.tally import TaskKey

SHARE = 0.01
#: Two walks over all modules (some 0.1 s each), and audits enough to meet a leak in one run of
#: fifty.
CREDIT_SECONDS = 0.5
#: Of what tracing itself keeps, some 100 bytes for each block that was allocated and is still
#: there, whichever it took the place of: to list more by line would take longer than some 0.1 s, so
#: a type whose runs make that many is not traced again.
MAX_TRACING_BYTES = 6 * 1024 * 1024
WALK_SECONDS = 0.003
WALK_PAUSE_RUNS = 4
PATH_SECONDS = 0.25
MAX_PATHS = 3
RUNS_PER_CHECK = 4


class DeepAuditor:
    """Deep audits of one process, one at a time."""

    def __init__(self, readings: Readings, account: Account | None = None) -> None:
        self.budget = Budget(SHARE, CREDIT_SECONDS, account, Entry.DEEP_AUDITS)
        self.dossiers: dict[TaskKey, Dossier] = {}
        self.probe = Probe()
        #: What a line may make rise that tracemalloc does not see.
        self._figures: dict[str, Reading] = {
            "native": readings.native_live,
            "descriptors": readings.fds,
            "threads": readings.threads,
            "processes": readings.children,
            "shared": readings.in_memory_files,
        }
        self._tracing = Tracing()
        self._watch: LineWatch | None = None
        self._sizes: dict[str, int] = {}
        self._begun = 0.0
        self._walk_after = 0
        self._suspect_runs = 0
        self._walking = False

    @property
    def has_suspects(self) -> bool:
        """Whether any task type of this process has been suspected."""
        return self._suspect_runs > 0

    def suspects(self, key: TaskKey) -> bool:
        """Whether the type's runs seem to leave memory behind."""
        dossier = self.dossiers.get(key)
        return dossier is not None and dossier.suspicion.bytes > 0

    def wants(self, key: TaskKey, profile: TaskProfile, busy_seconds: float) -> bool:
        """Whether the audited run that begins now is to be a deep one."""
        dossier = self.dossiers.get(key)
        if dossier is None:
            dossier = self.dossiers[key] = Dossier()
        if profile.runs - dossier.checked >= RUNS_PER_CHECK:
            dossier.checked = profile.runs
            dossier.suspicion = suspicion_of(profile.row)
        if not dossier.suspicion:
            return False
        self._suspect_runs += 1
        # Every second run until enough is found, so that plain audits go on beside; then ever more
        # seldom.
        pause = 1 if not dossier.explained else 4 << min(20, dossier.found)
        return (
            profile.runs - dossier.last > pause
            and self.budget.left(busy_seconds) > dossier.slowdown * profile.cpu_per_audit
        )

    def begin(self, key: TaskKey) -> None:
        """Before the audit's opening readings."""
        self._begun = time.process_time()
        dossier = self.dossiers[key]
        self._sizes = self.probe.sizes()
        dossier.searched += self.probe.walks >= QUICK_WALKS + 2
        if dossier.beyond_tracemalloc:
            self._watch = LineWatch(self._figures)
            self._watch.start()
        else:
            self._tracing.start(dossier.frames)

    def end(self, key: TaskKey, profile: TaskProfile, finding: Finding | None) -> None:
        """After the audit's closing readings; what outlived the run still is the middle
        generation."""
        dossier = self.dossiers[key]
        dossier.last = profile.runs
        dossier.audits += 1
        found = (
            self._end_watch(dossier)
            if self._watch is not None
            else self._end_trace(dossier, finding)
        )
        grown = self._grown(dossier)
        if found or grown:
            dossier.found += 1
        if (
            finding is not None
            and finding.types
            and found
            and not grown
            and self.probe.walks >= QUICK_WALKS
            and dossier.paths_tried < MAX_PATHS
        ):
            self._find_path(dossier)
        seconds = time.process_time() - self._begun
        dossier.slowdown = max(1.0, seconds / max(1e-4, profile.cpu_per_audit))
        self.budget.spend(seconds)

    def mark(self, key: TaskKey, profile: TaskProfile, age: int) -> None:
        """After a run of this age: notes what containers hold, if it was the first of that age."""
        if profile.row[age, Column.RUNS] != 1:
            return
        dossier = self.dossiers.get(key)
        if dossier is not None and dossier.suspicion:
            dossier.sizes[age] = self.probe.sizes()

    def abandon(self) -> None:
        """Leaves tracing as it was found."""
        self._tracing.stop()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def search(self, busy_seconds: float) -> None:
        """After any run: goes on with the walk over the containers, while there is a suspect."""
        if not self._walking and (self._suspect_runs < self._walk_after or self._all_held()):
            return
        if self.budget.left(busy_seconds) < WALK_SECONDS:
            return
        begun = time.thread_time()
        self._walking = not self.probe.work(WALK_SECONDS)
        if not self._walking:
            self._walk_after = self._suspect_runs + WALK_PAUSE_RUNS * self.probe.walks
        self.budget.spend(time.thread_time() - begun)

    def _all_held(self) -> bool:
        """Whether each suspect's holder is known."""
        suspects = [dossier for dossier in self.dossiers.values() if dossier.suspicion]
        return self.probe.walks >= QUICK_WALKS and all(dossier.holders for dossier in suspects)

    # --- parts -----------------------------------------------------------------------------------

    def _end_trace(self, dossier: Dossier, finding: Finding | None) -> bool:
        try:
            if self._tracing.active and tracemalloc.get_tracemalloc_memory() > MAX_TRACING_BYTES:
                dossier.too_large = True
            if finding is None or dossier.too_large:
                return False
            snapshot = self._tracing.snapshot()
            if snapshot is None:
                return False
            by_site, own = bytes_by_site(traces_of(snapshot))
            del snapshot
        finally:
            self.abandon()
        traced = sum(by_site.values())
        if traced < dossier.suspicion.bytes / 4:
            dossier.traced += 1
            return False
        if not own and dossier.frames == FEW_FRAMES:
            dossier.frames = FRAMES  # all of it is a library's; its callers are next
            return True
        dossier.traced += 1
        dossier.traced_bytes += traced
        for site, size in sorted(by_site.items(), key=lambda item: -item[1])[:MAX_NAMES]:
            dossier.add_site("bytes", site, size)
        return True

    def _end_watch(self, dossier: Dossier) -> bool:
        watch = self._watch
        assert watch is not None
        self.abandon()
        dossier.watched += 1
        found = False
        for figure in self._figures:
            for site, amount in watch.top(figure):
                dossier.add_site(figure, site, amount)
                found = True
        return found

    def _grown(self, dossier: Dossier) -> bool:
        """Books the containers that this run made grow."""
        grown = False
        for container in self.probe.containers():
            more = container.items - self._sizes.get(container.path, container.items)
            if more > 0:
                dossier.add_holder(container.path, container.kind, more)
                grown = True
        self._sizes = {}
        return grown

    def _find_path(self, dossier: Dossier) -> None:
        dossier.paths_tried += 1
        left = survivors.telling()
        path = references.path_to_module(left, PATH_SECONDS) or references.held_by_c_code(left)
        if path is not None:
            dossier.add_path(path)
