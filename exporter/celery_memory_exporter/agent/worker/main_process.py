"""The agent in the worker's main process: keeps the books of all processes and reports once per
interval.

With prefork the children measure; with solo, threads, gevent and eventlet tasks run in the main
process, and it measures itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
from typing import Any

import celery
from celery.worker import state

from celery_memory_exporter.agent.guard import Guard, guarded
from celery_memory_exporter.agent.heap import census
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.agent.stats.profile import Retained
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.worker import evidence
from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.evidence import Words
from celery_memory_exporter.agent.worker.ledger import Account, Costs, Ledger, TopTypes
from celery_memory_exporter.agent.worker.pool_child import (
    WARM_SECONDS,
    ChildAgent,
    interpreter_figures,
)
from celery_memory_exporter.agent.worker.process_reports import age, process_report
from celery_memory_exporter.agent.worker.requests import RequestCounter
from celery_memory_exporter.agent.worker.shares import Shares
from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.evidence import Estimate, Evidence
from celery_memory_exporter.common.names import pool_name
from celery_memory_exporter.common.report import (
    Bounds,
    Container,
    Instance,
    LostRuns,
    ObjectCount,
    WorkerReport,
)
from celery_memory_exporter.common.version import __version__

#: billiard's exit status of a child that reached its task or memory limit.
EX_RECYCLE = 155
SIGKILL = 9


class WorkerAgent:
    """One per worker: everything that is known about its processes."""

    def __init__(self, worker: Any, settings: Settings) -> None:
        self.guard = Guard()
        self.settings = settings
        self.worker = worker
        self.pool = pool_name(worker.pool_cls.__module__)  # app.conf does not know -P
        self.ledger = Ledger(settings.max_tasks)
        self.requests = RequestCounter(self.guard, settings)
        self.requests.count_tasks(worker.app.tasks)
        self.channel = Channel() if self.pool == "prefork" else None
        self._readings = Readings()
        self._peak = self._readings.peak()
        self._self = Account(slot=-1, start_ticks=procfs.start_ticks())
        self._census = census.Census(
            settings.census_seconds,
            settings.census_pause_seconds,
            enabled=settings.census_max_objects > 0,
        )
        self._top = TopTypes(settings.max_object_types)
        self._instance = Instance(
            procfs.boot_id(),
            procfs.pid_namespace(),
            os.getpid(),
            self._self.start_ticks,
            time.time(),
        )
        self._sequence = 0
        #: By the senders of consumers before this one.
        self.reports_dropped = 0
        self._started = time.monotonic()
        #: When the last report was made.
        self._reported = self._started
        self._first_told: dict[tally.TaskKey, float] = {}
        self._pool_processes: dict[int, Any] = {}
        self._oom_kills = procfs.cgroup_memory().oom_kills
        limit = worker.max_memory_per_child if self.channel else None
        self.child_memory_limit_bytes = int(limit) * 1024 if limit else None
        self._child: ChildAgent | None = None
        self._take_census(warm=False)
        self.meter: Meter | None = None
        if self.channel is None:
            self.meter = Meter(
                self.guard,
                self._readings,
                max_tasks=settings.max_tasks,
                audits=settings.audits and self.pool == "solo",
                on_close=self._after_run,
            )
            self._self.rows = self.meter.books.rows
        overlapping = self.meter if self.pool != "solo" else None
        self._shares = Shares(self._readings, overlapping)
        if overlapping is not None:
            overlapping.containers = self._shares

    # --- in a prefork child ----------------------------------------------------------------------

    @guarded
    def start_child(self) -> None:
        """Runs in each child after the fork, when Celery has built its tracers."""
        from billiard import current_process

        assert self.channel is not None
        settings = self.settings
        inherited = self._census.objects
        counting = census.Census(
            settings.census_seconds,
            settings.census_pause_seconds,
            enabled=inherited is not None and inherited <= settings.census_max_objects,
        )
        slot = getattr(current_process(), "index", -1)
        self._child = ChildAgent(
            self.channel, settings, slot, self.child_memory_limit_bytes, counting
        )
        os.register_at_fork(before=self._child.before_fork, after_in_child=self._child.after_fork)
        self._child.meter.wrap_tasks(self.worker.app.tasks)

    def end_child(self, exit_code: int) -> None:
        if self._child is not None:
            self._child.end(exit_code)

    # --- in the main process ---------------------------------------------------------------------

    def follow(self, consumer: Any) -> None:
        """The consumer has (re)started: it has new tracers, and maybe other queues."""
        self._count_requests(consumer)
        self.wrap_tasks()

    @guarded
    def _count_requests(self, consumer: Any) -> None:
        if self.requests.count_tasks(
            self.worker.app.tasks
        ):  # of tasks that came after the worker was made
            consumer.update_strategies()
        self.requests.follow(consumer)

    def wrap_tasks(self) -> None:
        if self.meter is not None:
            self.meter.wrap_tasks(self.worker.app.tasks)

    @guarded
    def look(self) -> None:
        """Reads what the children wrote, closes the accounts of those that are gone, and notes what
        all runs together left."""
        if self.channel is not None:
            self._look_at_children()
        self._shares.look([*self.ledger.children.values(), self._self])
        self._shares.rest()

    def _look_at_children(self) -> None:
        self._drain()
        pool = {process.pid: process for process in self._children() if process.pid}
        for pid, process in pool.items():
            self.ledger.open_account(pid, process.index, procfs.start_ticks(pid))
        gone = [pid for pid in self.ledger.children if pid not in pool]
        self._drain()  # what those wrote last is in the pipe by now
        for pid in gone:
            self._close(pid, self._pool_processes.get(pid))
        self._pool_processes = pool

    def _children(self) -> list[Any]:
        """None when the pool has ended."""
        pool = self.worker.pool._pool
        return list(pool._pool) if pool is not None else []

    def report(self, reports_dropped: int, *, final: bool = False) -> WorkerReport:
        """The worker as it is now. ``final``: it has stopped."""
        self._sequence += 1
        if self.meter is not None:
            self.wrap_tasks()
        with self.meter.housekeeping() if self.meter is not None else contextlib.nullcontext():
            report = self._report(reports_dropped, final=final)
        self._reported = time.monotonic()
        return report

    # --- parts -----------------------------------------------------------------------------------

    def _drain(self) -> None:
        assert self.channel is not None
        for record in self.channel.receive():
            self.ledger.apply(record)

    def _close(self, pid: int, process: Any) -> None:
        assert self.channel is not None
        account = self.ledger.children[pid]
        state = self.channel.take(account.slot, pid)
        running = state.task if state is not None and state.since else None
        reason = self._reason(account, getattr(process, "exitcode", None))
        self.ledger.close_account(pid, reason, running if account.exit_code is None else None)

    def _reason(self, account: Account, exit_code: int | None) -> str:
        """``exit_code`` is the pool's; a child that ended by itself told its own before."""
        if EX_RECYCLE in (account.exit_code, exit_code):
            limit = self.child_memory_limit_bytes
            peak = account.peak_bytes or account.figures.get("peak_rss_bytes") or 0
            return "memory" if limit is not None and peak > limit else "tasks"
        if account.exit_code is not None or exit_code == 0:
            return "shutdown"
        if exit_code is not None and exit_code > 0:
            return "error"
        # Also of a child that came and went between two looks, without a word: only a kill keeps
        # one from telling.
        return "oom" if exit_code in (-SIGKILL, None) and self._take_oom_kill() else "signal"

    def _take_oom_kill(self) -> bool:
        """Whether the kernel's count of OOM kills in this cgroup explains one more SIGKILL."""
        now = procfs.cgroup_memory().oom_kills
        if now is None or self._oom_kills is None or now <= self._oom_kills:
            return False
        self._oom_kills += 1
        return True

    def _after_run(self, _: tally.TaskKey) -> None:
        """Outside prefork. A pool that is busy all the time rests between two runs, if ever."""
        self._peak = max(self._peak, self._readings.peak())
        self._shares.look([self._self])

    @guarded
    def _take_census(self, *, warm: bool) -> None:
        self._census.take(warm=warm)
        self._self.types = self._census.types()

    def _measure_self(self) -> None:
        now = time.monotonic()
        if self._census.due(now, idle=self.meter is not None and self.meter.idle):
            self._take_census(warm=now - self._started >= WARM_SECONDS)
        figures = interpreter_figures(self._readings, self._census.objects)
        figures["peak_rss_bytes"] = max(self._peak, self._readings.peak())
        self._self.figures = figures
        if self.meter is not None:
            self._self.costs = Costs(self.meter.overhead_seconds, 0, self.meter.books.tasks_folded)
            self._tell_self(self.meter)

    def _tell_self(self, meter: Meter) -> None:
        """What children tell through the pipe."""
        self._self.containers = meter.deep.probe.containers() or self._shares.containers()
        rows = {row.path: row for row in self._self.containers}
        for key, grown in list(meter.books.growth.items()):
            words = self._self.words.setdefault(key, Words())
            for kind, _, _, _, *told in evidence.records(
                0, key, grown, meter.deep.dossiers.get(key), rows
            ):
                evidence.apply(words, kind, told)

    def _report(self, reports_dropped: int, *, final: bool) -> WorkerReport:
        worker = self.worker
        self._measure_self()
        accounts = [self._self]
        retained, words = self.ledger.retained(accounts), self.ledger.words(accounts)
        overlapping, tmpfs = self._shares.estimates()
        types = self.ledger.types(accounts)
        native = self._readings.native_live() is not None
        costs = Costs(errors=self.guard.errors)
        for account in [self._self, *self.ledger.children.values()]:
            costs.add(account.costs)
        costs.add(self.ledger.costs)
        # A successor may have been forked since the pool was looked at: the younger one has the
        # slot.
        slots = {
            child.slot: (pid, child)
            for pid, child in sorted(self.ledger.children.items(), key=age)
            if child.slot >= 0
        }
        return WorkerReport(
            worker=worker.hostname,
            instance=self._instance,
            sequence=self._sequence,
            interval_seconds=self.settings.interval_seconds,
            pool=self.pool,
            concurrency=self._concurrency(),
            python_version=platform.python_version(),
            celery_version=celery.__version__,
            agent_version=__version__,
            bounds=Bounds(
                runtime_seconds=list(self.settings.runtime_buckets),
                queue_wait_seconds=list(self.settings.queue_wait_buckets),
                delta_bytes=tally.DELTA_BYTES,
                peak_bytes=tally.PEAK_BYTES,
            ),
            processes=[
                process_report("main", os.getpid(), self._self),
                *(
                    process_report(str(slot), pid, child)
                    for slot, (pid, child) in sorted(slots.items())
                ),
            ],
            tasks=[
                tally.to_report(
                    key,
                    row,
                    retained=retained.get(key, Retained()),
                    evidence=self._evidence(key, words[key], overlapping, tmpfs)
                    if key in words
                    else None,
                    native=native,
                    peak=self._peaks_known(),
                )
                for key, row in sorted(self.ledger.rows(accounts).items())
            ],
            objects=[ObjectCount(name, *types[name][:2]) for name in self._top.choose(types)],
            lost=[
                LostRuns(name, reason, count)
                for (name, reason), count in sorted(self.ledger.lost.items())
            ],
            children_started=self.ledger.started,
            children_exited=dict(self.ledger.exited),
            child_memory_limit_bytes=self.child_memory_limit_bytes,
            cgroup=procfs.cgroup_memory(),
            overhead_seconds=costs.seconds,
            reports_dropped=reports_dropped,
            errors=costs.errors,
            dropped={"tasks": costs.tasks_folded, "traffic": self.requests.folded},
            containers=[*waiting_requests(), *self._containers(accounts)],
            traffic=self.requests.traffic(),
            running=self.requests.running(),
            active=self.requests.active(),
            prefetched=self.requests.prefetched(),
            queues=self.requests.queues(),
            final=int(final),
        )

    def _concurrency(self) -> int:
        """Of the pool as it is: autoscale and ``pool_grow`` change it."""
        return int(getattr(self.worker.pool, "num_processes", None) or self.worker.concurrency)

    def _evidence(
        self,
        key: tally.TaskKey,
        words: Words,
        overlapping: dict[str, Estimate],
        tmpfs: dict[str, Estimate],
    ) -> Evidence:
        told = evidence.to_evidence(
            words, self._seconds_of(key), overlapping.get(key[0]), tmpfs.get(key[0])
        )
        if told.overlapping is None:
            return told
        return dataclasses.replace(
            told, holders=self._shares.holders(key[0]), collections=self._shares.collections()
        )

    def _containers(self, accounts: list[Account]) -> list[Container]:
        rows = self.ledger.containers(accounts)[: evidence.NAMES - 1]
        return [Container(row.path, row.kind, row.items, row.growth, row.capacity) for row in rows]

    def _seconds_of(self, key: tally.TaskKey) -> float:
        """For which the type has been running: since the report before the first one that told of
        it, when it had not run yet."""
        return time.monotonic() - self._first_told.setdefault(key, self._reported)

    def _peaks_known(self) -> bool:
        return os.access("/proc/self/clear_refs", os.W_OK)


def waiting_requests() -> list[Container]:
    """Requests that wait in the main process: those with an eta or a countdown, and what is
    prefetched."""
    items = len(state.requests)
    return [Container("celery.worker.state.requests", "dict", items, items)] if items else []
