"""What the runs of one process add up to, by task type and queue.

Amounts are added without the meter's own share (the objects that hold the opening readings, the
answer itself), which ``calibration`` measures with a task that does nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from celery_memory_exporter.agent.audit.dossier import Dossier
from celery_memory_exporter.agent.audit.finding import Finding
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.meter.answers import SUCCEEDED
from celery_memory_exporter.agent.meter.run import Run
from celery_memory_exporter.agent.stats import growth, tally
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.common.names import short_name
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

TRACEBACK_BLOCKS = 3


class Bias(NamedTuple):
    """The meter's own blocks and native bytes, in a run of nothing."""

    blocks: float = 0.0
    native: float = 0.0

    @property
    def size(self) -> float:
        """Both, in blocks."""
        return self.blocks + self.native / MEAN_BLOCK_BYTES


@dataclass(frozen=True, slots=True)
class Biases:
    """The meter's own share by how a run is measured: only read, audited, audited and failed."""

    sample: Bias = Bias()
    audit: Bias = Bias()
    failed: Bias = Bias()
    #: Fewer blocks are no leak of a run that failed.
    least_failed: float = -math.inf


NO_BIASES = Biases()


@dataclass(frozen=True, slots=True)
class Costs:
    """What the agent itself used and could not do in a process."""

    seconds: float = 0.0
    errors: int = 0
    tasks_folded: int = 0
    #: Audits that said nothing, by what disturbed them.
    discarded: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Costs) -> Costs:
        return Costs(
            self.seconds + other.seconds,
            self.errors + other.errors,
            self.tasks_folded + other.tasks_folded,
            dict(Counter(self.discarded) + Counter(other.discarded)),
        )


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything that is to be sent of a process's runs. Totals and growth are the meter's own:
    they go on rising, and types may be added while one goes through them."""

    totals: dict[TaskKey, TaskTotals]
    growth: dict[TaskKey, TaskProfile]
    dossiers: dict[TaskKey, Dossier]
    #: Those that grow.
    containers: list[GrowingContainer]
    costs: Costs


class Totals:
    """Rows of figures by task type and queue; types beyond ``max_tasks`` are one."""

    def __init__(self, max_tasks: int, biases: Biases) -> None:
        self.rows: dict[TaskKey, TaskTotals] = {}
        self.growth: dict[TaskKey, TaskProfile] = {}
        self.tasks_folded = 0
        #: Makes the row of a type that has none; its owner may have it where others read it.
        self.new_row: Callable[[TaskKey], TaskTotals] = lambda _: TaskTotals()
        self._max_tasks = max_tasks
        self._biases = biases
        self._known: dict[TaskKey, tuple[TaskKey, TaskTotals, TaskProfile]] = {}

    def row_of(self, name: str, request: Any) -> tuple[TaskKey, TaskTotals, TaskProfile]:
        delivery = (request or {}).get("delivery_info") or {}
        route = delivery.get("routing_key") or ""
        known = self._known.get((name, route)) if type(route) is str else None
        return known if known is not None else self._find(name, route)

    def _find(self, name: str, route: Any) -> tuple[TaskKey, TaskTotals, TaskProfile]:
        key = (name, short_name(str(route)))
        if key not in self.rows:
            if len(self.rows) >= self._max_tasks and key != tally.OTHER:
                self.tasks_folded += 1
                key = tally.OTHER
            self.growth.setdefault(key, TaskProfile())
            if key not in self.rows:
                self.rows.setdefault(key, self.new_row(key))
        found = key, self.rows[key], self.growth[key]
        if key == (name, route):  # not where any number of routes are one row
            self._known[key] = found
        return found

    def add_sample(
        self, run: Run, blocks: int, native: int | None, *, freed: bool, only_large: bool
    ) -> None:
        """Live memory after a run that was not audited. ``freed``: a collection freed something
        meanwhile, maybe another run's."""
        bias = self._biases.sample
        more = blocks - run.blocks - bias.blocks
        more_native = (
            0.0 if native is None or run.native is None else native - run.native - bias.native
        )
        if not freed or more > 0:
            run.growth.add_sample(run.age, more, more_native, only_large=only_large)

    def add_finding(self, run: Run, finding: Finding) -> None:
        """What an audited run left behind."""
        run.row.add_audit()
        if run.growth.runs > growth.WARM_RUNS_AT_LEAST:
            run.growth.add_survivors(finding.types)
        bias = self._biases.audit if run.outcome == SUCCEEDED else self._biases.failed
        blocks, native = finding.blocks - bias.blocks, finding.native - bias.native
        if run.deep:
            # What tracing itself holds is in the figures, so only much of them tells; nor are they
            # free of what the run replaced.
            if not run.growth.replaces:
                run.growth.add_sample(run.age, blocks, 0.0, only_large=True)
            return
        if run.outcome != SUCCEEDED:
            # Formatting a traceback leaves some texts in caches of the interpreter and the
            # libraries.
            blocks, native = (blocks, native) if blocks > self._biases.least_failed else (0.0, 0.0)
            run.growth.add_failed(blocks, native)
        run.growth.cpu_seconds += run.cpu
        run.growth.add_audit(run.age, blocks, native)
        run.growth.add_kernel(
            run.age, finding.fds, finding.threads, finding.children, finding.shared
        )
        run.growth.add_garbage(run.age, finding.garbage_blocks, finding.garbage_native)
