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

import os
import time
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.audit import sites
from celery_memory_exporter.agent.audit.audit import Finding, Survivors
from celery_memory_exporter.agent.audit.lines import LineWatch
from celery_memory_exporter.agent.audit.suspicion import Suspicion, suspicion_of
from celery_memory_exporter.agent.heap import census, references
from celery_memory_exporter.agent.heap.containers import QUICK_WALKS, Probe
from celery_memory_exporter.agent.stats import growth
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.growth import Growth
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.stats.tally import Row, TaskKey

SHARE = 0.01
#: Two walks over all modules (some 0.1 s each), and audits enough to meet a leak in one run of
#: fifty.
CREDIT_SECONDS = 0.5
#: Deep audits that found something: then a type is explained, and looked at ever more seldom.
ENOUGH = 4
#: Or this many, whatever they found.
PATIENCE = 60
#: Most lines are the application's own; where a library allocates, some more frames show who called
#: it.
FEW_FRAMES, FRAMES = 1, 12
#: How much slower a run may get by tracing; what it really was, once a run of the type has been
#: traced.
SLOWDOWN = 10.0
#: Of what tracing itself keeps, some 100 bytes for each block that was allocated and is still
#: there, whichever it took the place of: to list more by line would take longer than some 0.1 s, so
#: a type whose runs make that many is not traced again.
MAX_TRACING_BYTES = 6 * 1024 * 1024
MAX_NAMES = 20
WALK_SECONDS = 0.003
WALK_PAUSE_RUNS = 4
PATH_SECONDS = 0.25
MAX_PATHS = 3
RUNS_PER_CHECK = 4


@dataclass(slots=True)
class Dossier:
    """What deep audits of one task type in one process found."""

    suspicion: Suspicion = field(default_factory=Suspicion)
    checked: int = 0
    #: Runs of the type at the last deep audit.
    last: int = -1
    audits: int = 0
    #: Those with tracemalloc's answer, and those with a watch over lines.
    traced: int = 0
    watched: int = 0
    #: Deep audits after containers had been looked for in all modules.
    searched: int = 0
    #: Deep audits that found bytes or a figure that rose.
    found: int = 0
    traced_bytes: float = 0.0
    #: (figure, site) -> amount; the figure is "bytes" from tracemalloc, else what the line watch
    #: reads.
    sites: dict[tuple[str, str], float] = field(default_factory=dict)
    #: Container path -> kind and items that audited runs added.
    holders: dict[str, tuple[str, float]] = field(default_factory=dict)
    paths: dict[str, int] = field(default_factory=dict)
    paths_tried: int = 0
    #: At the first run of each age (its index): sizes of the containers that were followed then.
    sizes: dict[int, dict[str, int]] = field(default_factory=dict)
    #: Runs allocate more than can be listed.
    too_large: bool = False
    slowdown: float = SLOWDOWN
    frames: int = FEW_FRAMES

    @property
    def explained(self) -> bool:
        """Whether there is little to gain from more: enough was found, and its holder, unless it
        has been looked for everywhere."""
        return self.found >= ENOUGH and (
            bool(self.holders) or self.searched >= ENOUGH or self.audits >= PATIENCE
        )

    def fill(self, path: str, items: int, row: Row) -> list[tuple[float, float]]:
        """How a container filled up, age by age past start-up: items gained, and runs of the type
        meanwhile."""
        told: list[tuple[float, float]] = []
        newest = max(self.sizes, default=-1)
        for age in range(growth.WARM // growth.WIDTH, newest + 1):
            runs = row[age * growth.WIDTH + growth.RUNS]
            before, after = self.sizes.get(age, {}).get(path), self.sizes.get(age + 1, {}).get(path)
            if age == newest:
                after, runs = (
                    items,
                    runs - 1,
                )  # the age was entered by a run that was over when sizes were read
            told.append(
                (0.0, 0.0) if before is None or after is None else (float(after - before), runs)
            )
        return told

    def add_site(self, figure: str, site: str, amount: float) -> None:
        if (figure, site) in self.sites or len(self.sites) < MAX_NAMES:
            self.sites[figure, site] = self.sites.get((figure, site), 0.0) + amount

    def add_holder(self, path: str, kind: str, items: float) -> None:
        if path in self.holders or len(self.holders) < MAX_NAMES:
            self.holders[path] = (kind, self.holders.get(path, (kind, 0.0))[1] + items)


class DeepAuditor:
    """Deep audits of one process, one at a time."""

    def __init__(self, readings: Readings) -> None:
        self.budget = Budget(SHARE, CREDIT_SECONDS)
        self.dossiers: dict[TaskKey, Dossier] = {}
        self.probe = Probe()
        self._readings = readings
        self._tracing = False
        self._watch: LineWatch | None = None
        self._sizes: dict[str, int] = {}
        self._begun = 0.0
        self._walk_after = 0
        self._suspect_runs = 0
        self._walking = False

    @property
    def suspects(self) -> bool:
        """Whether there has been one."""
        return self._suspect_runs > 0

    def wants(self, key: TaskKey, growth: Growth, busy_seconds: float) -> bool:
        """Whether the audited run that begins now is to be a deep one."""
        dossier = self.dossiers.get(key)
        if dossier is None:
            dossier = self.dossiers[key] = Dossier()
        if growth.runs - dossier.checked >= RUNS_PER_CHECK:
            dossier.checked = growth.runs
            dossier.suspicion = suspicion_of(growth.row)
        if not dossier.suspicion:
            return False
        self._suspect_runs += 1
        # Every second run until enough is found, so that plain audits go on beside; then ever more
        # seldom.
        pause = 1 if not dossier.explained else 4 << min(20, dossier.found)
        return (
            growth.runs - dossier.last > pause
            and self.budget.left(busy_seconds) > dossier.slowdown * growth.cpu_per_audit
        )

    def begin(self, key: TaskKey) -> None:
        """Before the audit's opening readings."""
        self._begun = time.process_time()
        dossier = self.dossiers[key]
        self._sizes = self.probe.sizes()
        dossier.searched += self.probe.walks >= QUICK_WALKS + 2
        if _beyond_tracemalloc(dossier):
            readings = self._readings
            self._watch = LineWatch(
                {
                    "native": readings.native_live,
                    "descriptors": readings.fds,
                    "threads": readings.threads,
                    "processes": readings.children,
                    "shared": readings.in_memory_files,
                }
            )
            self._watch.start()
        elif not tracemalloc.is_tracing():
            self._tracing = True  # before it is: a soft time limit may be raised in between
            tracemalloc.start(dossier.frames)

    def end(self, key: TaskKey, growth: Growth, finding: Finding | None) -> None:
        """After the audit's closing readings; ``finding`` still has the survivors."""
        dossier = self.dossiers[key]
        dossier.last = growth.runs
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
            and found
            and not grown
            and self.probe.walks >= QUICK_WALKS
            and dossier.paths_tried < MAX_PATHS
        ):
            self._find_path(dossier, finding.survivors)
        seconds = time.process_time() - self._begun
        dossier.slowdown = max(1.0, seconds / max(1e-4, growth.cpu_per_audit))
        self.budget.spend(seconds)

    def mark(self, key: TaskKey, grown: Growth, start: int) -> None:
        """After a run whose figures start there in its type's row: notes what containers hold as it
        enters an age."""
        if grown.row[start + growth.RUNS] != 1:
            return
        dossier = self.dossiers.get(key)
        if dossier is not None and dossier.suspicion:
            dossier.sizes[start // growth.WIDTH] = self.probe.sizes()

    def abandon(self) -> None:
        """Leaves tracing as it was found."""
        if self._tracing:
            tracemalloc.stop()
            self._tracing = False
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def rest(self, busy_seconds: float) -> None:
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
        if not self._tracing:
            return False
        try:
            if tracemalloc.get_tracemalloc_memory() > MAX_TRACING_BYTES:
                dossier.too_large = True
            if finding is None or dossier.too_large:
                return False
            by_site, told = _traced(tracemalloc.take_snapshot())
        finally:
            self.abandon()
        traced = sum(by_site.values())
        if traced < dossier.suspicion.bytes / 4:
            dossier.traced += 1
            return False
        if not told and dossier.frames == FEW_FRAMES:
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
        for figure in ("native", "descriptors", "threads", "processes", "shared"):
            for site, amount in watch.top(figure):
                dossier.add_site(figure, site, amount)
                found = True
        return found

    def _grown(self, dossier: Dossier) -> bool:
        """Books the containers that this run made grow."""
        grown = False
        for row in self.probe.rows():
            more = row.items - self._sizes.get(row.path, row.items)
            if more > 0:
                dossier.add_holder(row.path, row.kind, more)
                grown = True
        self._sizes = {}
        return grown

    def _find_path(self, dossier: Dossier, survivors: Survivors) -> None:
        dossier.paths_tried += 1
        path = references.path_to_module(_telling(survivors), PATH_SECONDS)
        if path is not None:
            dossier.paths[path] = dossier.paths.get(path, 0) + 1


def _beyond_tracemalloc(dossier: Dossier) -> bool:
    """Whether lines have to be watched: what rises is not Python's memory, or tracemalloc saw none
    of it."""
    if dossier.too_large:
        return True
    blind = dossier.audits >= 2 and dossier.traced_bytes < dossier.suspicion.bytes / 2
    # Both kinds may be there: they take turns.
    return (dossier.suspicion.kernel or blind) and (
        dossier.audits % 2 == 1 or not dossier.suspicion.bytes
    )


def _telling(survivors: Survivors) -> list[Any]:
    """Some survivors to look for a holder of: instances of the application's own classes first,
    then the last ones made."""
    own = [
        each
        for each in survivors[:10_000]
        if "." in census.type_name(type(each)) and type(each) is not trace_ok_t
    ]
    return (own or survivors)[-5:]


def _traced(snapshot: tracemalloc.Snapshot) -> tuple[dict[str, float], bool]:
    """Bytes by site, and whether these are the application's own: its innermost lines, else
    libraries', never the agent's."""
    own: dict[str, float] = {}
    libraries: dict[str, float] = {}
    for statistic in snapshot.statistics("traceback"):
        frames = [(frame.filename, frame.lineno) for frame in reversed(statistic.traceback)]
        outside = [
            frame
            for frame in frames
            if not frame[0].startswith(OWN_DIRECTORY) and frame[0] != tracemalloc.__file__
        ]
        if not outside or outside[0] != frames[0]:
            continue
        line = next(
            (
                frame
                for frame in outside
                if sites.is_application(frame[0]) and not frame[0].startswith("<")
            ),
            None,
        )
        by_site = libraries if line is None else own
        site = sites.site_of(*(line or outside[0]))
        by_site[site] = by_site.get(site, 0.0) + statistic.size
    # Without a line of the application it is most likely what the worker keeps of each run until
    # the next one.
    return (own, True) if own else (libraries, False)


#: The agent: this file is in ``agent/audit/``.
OWN_DIRECTORY = str(Path(__file__).parents[1]) + os.sep
