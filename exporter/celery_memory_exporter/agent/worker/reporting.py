"""Makes the report out of what is known of the worker and its processes.

Each report has all figures. What the next one has to know of those before is here: how many there
were, whose evidence they told, since when each task type has been running, and which object types
were reported.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from dataclasses import dataclass
from typing import Any

import celery
from celery.worker import state

from celery_memory_exporter.agent.heap.census import TypeCount
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.agent.stats.tally import TaskKey
from celery_memory_exporter.agent.worker.evidence import NAMES, TaskEvidence, together
from celery_memory_exporter.agent.worker.evidence_reports import to_evidence
from celery_memory_exporter.agent.worker.ledger import Ledger
from celery_memory_exporter.agent.worker.main_search import MainSearch
from celery_memory_exporter.agent.worker.process_reports import age, process_report
from celery_memory_exporter.agent.worker.profile_sum import ProfileSum
from celery_memory_exporter.agent.worker.requests import RequestCounter
from celery_memory_exporter.agent.worker.shares import Shares
from celery_memory_exporter.agent.worker.turns import Turns
from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.evidence import Estimate, Evidence
from celery_memory_exporter.common.report import (
    Bounds,
    Container,
    Instance,
    ObjectCount,
    ProcessReport,
    TaskReport,
    WorkerReport,
)
from celery_memory_exporter.common.version import __version__


class TopTypes:
    """Which object types are reported: at most ``size``, the fastest growing first.

    A type comes in when it is among the first half of ``size`` and goes when it is no longer among
    the first ``size``: a series that comes and goes with each scrape cannot be drawn.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._members: set[str] = set()

    def choose(self, types: dict[str, TypeCount]) -> list[str]:
        ranked = sorted(types, key=lambda name: (-types[name][2], -types[name][1], name))
        best = set(ranked[: (self._size + 1) // 2])
        self._members = best | (self._members & set(ranked[: self._size]))
        return [name for name in ranked[: self._size] if name in self._members]


@dataclass(frozen=True, slots=True)
class Sources:
    """What a report is made of."""

    #: Celery's own.
    worker: Any
    pool: str
    settings: Settings
    ledger: Ledger
    shares: Shares
    requests: RequestCounter
    child_memory_limit_bytes: int | None


class Reporter:
    """Makes the reports of one run of one worker."""

    def __init__(self, sources: Sources) -> None:
        self._from = sources
        self._sequence = 0
        self._top = TopTypes(sources.settings.max_object_types)
        self._instance = Instance(
            procfs.boot_id(),
            procfs.pid_namespace(),
            os.getpid(),
            sources.ledger.main.start_ticks,
            time.time(),
        )
        #: When the last report was made; by task type, when the last one without it was.
        self._reported = time.monotonic()
        self._without: dict[TaskKey, float] = {}
        self._turns = Turns()
        self._search = MainSearch(sources.ledger.main.history)
        self._profiles: dict[TaskKey, ProfileSum] = {}

    def look_for_holders(self) -> None:
        """Goes on with the search for what the main process of a prefork pool keeps."""
        self._search.work()

    def first(self, *, native: bool) -> WorkerReport:
        """The worker before its first task, as it would be told if it were killed now: number 0,
        which is not sent."""
        report = self.report(native=native, reports_dropped=0, final=False)
        self._sequence -= 1
        return dataclasses.replace(report, sequence=self._sequence)

    def report(self, *, native: bool, reports_dropped: int, final: bool) -> WorkerReport:
        """The worker as it is now. ``native``: whether bytes of the C heap can be read;
        ``reports_dropped``: how many reports could not be sent so far; ``final``: the worker has
        stopped."""
        worker, settings, ledger = self._from.worker, self._from.settings, self._from.ledger
        requests, costs = self._from.requests, self._from.ledger.costs()
        self._sequence += 1
        evidence = self._evidence(reports_dropped, final=final)
        report = WorkerReport(
            worker=worker.hostname,
            instance=self._instance,
            sequence=self._sequence,
            interval_seconds=settings.interval_seconds,
            pool=self._from.pool,
            concurrency=concurrency(worker),
            python_version=platform.python_version(),
            celery_version=celery.__version__,
            agent_version=__version__,
            bounds=bounds(settings),
            processes=self._processes(),
            tasks=self._tasks(evidence, native=native),
            objects=self._objects(),
            lost=ledger.lost_runs(),
            children_started=ledger.started,
            children_exited=dict(ledger.exited),
            child_memory_limit_bytes=self._from.child_memory_limit_bytes,
            cgroup=procfs.cgroup_memory(),
            overhead_seconds=costs.seconds,
            reports_dropped=reports_dropped,
            errors=costs.errors,
            audits_discarded=costs.discarded,
            dropped={"tasks": costs.tasks_folded, "traffic": requests.folded},
            containers=[*waiting_requests(), *told(self._from.ledger.containers()[: NAMES - 1])],
            main_containers=told(self._search.containers()),
            **self._messages(),
            final=int(final),
            partial=1 if None in evidence.values() else None,
        )
        self._reported = time.monotonic()
        return report

    # --- parts -----------------------------------------------------------------------------------

    def _messages(self) -> dict[str, Any]:
        requests = self._from.requests
        return {
            "traffic": requests.traffic(),
            "running": requests.running(),
            "active": requests.active(),
            "prefetched": requests.prefetched(),
            "queues": requests.queues(),
        }

    def _processes(self) -> list[ProcessReport]:
        ledger = self._from.ledger
        # A successor may have been forked since the pool was looked at: the younger one has the
        # slot.
        slots = {
            child.slot: (pid, child)
            for pid, child in sorted(ledger.children.items(), key=age)
            if child.slot >= 0
        }
        return [
            process_report("main", os.getpid(), ledger.main),
            *(process_report(str(slot), *slots[slot]) for slot in sorted(slots)),
        ]

    def _tasks(self, evidence: dict[TaskKey, Evidence | None], *, native: bool) -> list[TaskReport]:
        # Whoever has changed is told, and so its sum is as it is now.
        profiles, unknown = self._profiles, ProfileSum()
        # Whether the mark can be reset, so that a run's own peak is known.
        peak = os.access("/proc/self/clear_refs", os.W_OK)
        return [
            tally.to_report(
                key,
                row,
                retained=profiles.get(key, unknown).retained,
                evidence=evidence.get(key),
                native=native,
                peak=peak,
            )
            for key, row in sorted(self._from.ledger.tasks().items())
        ]

    def _evidence(self, reports_dropped: int, *, final: bool) -> dict[TaskKey, Evidence | None]:
        """By task type that something is known of; ``None`` where it is left out."""
        known, estimates = self._from.ledger.evidence(), self._from.shares.estimates()
        changes = {key: max(part.change for part in parts) for key, parts in known.items()}
        told = self._turns.choose(changes, reports_dropped)
        return {
            key: self._told(key, parts, *estimates) if final or key in told else None
            for key, parts in known.items()
        }

    def _told(
        self,
        key: TaskKey,
        parts: list[TaskEvidence],
        overlapping: dict[str, Estimate],
        tmpfs: dict[str, Estimate],
    ) -> Evidence:
        name, shares = key[0], self._from.shares
        summed = self._profiles.setdefault(key, ProfileSum())
        summed.update(parts)
        value = to_evidence(
            together(parts, summed.row),
            summed.profile,
            self._seconds_of(key),
            overlapping.get(name),
            tmpfs.get(name),
        )
        if value.overlapping is None:
            return value
        return dataclasses.replace(
            value, holders=shares.holders(name), collections=shares.collections()
        )

    def _seconds_of(self, key: TaskKey) -> float:
        """Seconds since the last report before the type's first run, at most so long it has been
        running."""
        return time.monotonic() - self._without.setdefault(key, self._reported)

    def _objects(self) -> list[ObjectCount]:
        types = self._from.ledger.types()
        return [ObjectCount(name, *types[name][:2]) for name in self._top.choose(types)]


def told(rows: list[GrowingContainer]) -> list[Container]:
    """Containers that grow, as the report has them."""
    return [
        Container(each.path, each.kind, each.items, each.growth, each.capacity) for each in rows
    ]


def concurrency(worker: Any) -> int:
    """Of the pool as it is: autoscale and ``pool_grow`` change it."""
    return int(getattr(worker.pool, "num_processes", None) or worker.concurrency)


def bounds(settings: Settings) -> Bounds:
    """Of the report's histograms."""
    return Bounds(
        runtime_seconds=list(settings.runtime_buckets),
        queue_wait_seconds=list(settings.queue_wait_buckets),
        delta_bytes=tally.DELTA_BYTES,
        peak_bytes=tally.PEAK_BYTES,
    )


def waiting_requests() -> list[Container]:
    """Requests that wait in the main process: those with an eta or a countdown, and what is
    prefetched."""
    items = len(state.requests)
    return [Container("celery.worker.state.requests", "dict", items, items)] if items else []
