"""The agent in the worker's main process: collects what all processes measured, and reports once
per interval.

With prefork the children measure; with solo, threads, gevent and eventlet tasks run in the main
process, and it measures itself.
"""

from __future__ import annotations

import os
import time
import weakref
from typing import Any

from celery_memory_exporter.agent.guard import Guard, guarded
from celery_memory_exporter.agent.heap.census import Census
from celery_memory_exporter.agent.meter.books import Costs, Measurements
from celery_memory_exporter.agent.meter.calibration import calibrated_meter
from celery_memory_exporter.agent.meter.conditions import Conditions
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import wrap_tasks
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.evidence_records import evidence_records
from celery_memory_exporter.agent.worker.exits import Exits
from celery_memory_exporter.agent.worker.figures import own_figures
from celery_memory_exporter.agent.worker.inheritance import Inheritance
from celery_memory_exporter.agent.worker.keeping import Keeper
from celery_memory_exporter.agent.worker.ledger import Ledger
from celery_memory_exporter.agent.worker.pool_child import WARM_SECONDS, ChildAgent
from celery_memory_exporter.agent.worker.predecessors import Predecessors, predecessors
from celery_memory_exporter.agent.worker.reporting import Reporter, Sources
from celery_memory_exporter.agent.worker.requests import RequestCounter
from celery_memory_exporter.agent.worker.running import RunningHere
from celery_memory_exporter.agent.worker.shared_map import Shape
from celery_memory_exporter.agent.worker.shares import Shares
from celery_memory_exporter.agent.worker.state import State, open_folder
from celery_memory_exporter.agent.worker.state_folder import StateFolder
from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.codec import encode
from celery_memory_exporter.common.names import pool_name
from celery_memory_exporter.common.report import WorkerReport

#: Of a pool that grows: slots beyond them work, and what they do is told through the pipe alone.
SPARE_SLOTS = 2


class WorkerAgent:
    """One per worker: everything that is known about its processes."""

    def __init__(self, worker: Any, settings: Settings) -> None:
        self.guard = Guard()
        self.settings = settings
        self.worker = worker
        self.pool = pool_name(worker.pool_cls.__module__)  # app.conf does not know -P
        self.ledger = Ledger(settings.max_tasks, procfs.start_ticks())
        folder = open_folder(settings.state_dir)
        self.state = State(folder, worker.hostname, self._shape())
        self.shared = self.state.shared
        self.predecessors = self._find_predecessors(folder) or Predecessors([], 0, 0.0)
        self.requests = RequestCounter(self.guard, settings, self.state.journal)
        self.requests.count_tasks(worker.app.tasks)
        self.keeper = Keeper(self.guard, self.state, self.ledger, self.requests)
        self.channel = Channel(self.shared) if self.pool == "prefork" else None
        #: By the senders of consumers before this one.
        self.reports_dropped = 0
        limit = worker.max_memory_per_child if self.channel else None
        self.child_memory_limit_bytes = int(limit) * 1024 if limit else None
        self._exits = Exits(self.child_memory_limit_bytes, lambda: procfs.cgroup_memory().oom_kills)
        self._readings = Readings()
        self._inheritance = self._make_inheritance()
        self._peak = self._readings.peak()
        seconds = settings.census_seconds, settings.census_pause_seconds
        self._census = Census(*seconds, most_copied=settings.census_max_objects)
        self._started = time.monotonic()
        self._pool_processes: dict[int, Any] = {}
        #: Rows of the shared map that the ledger has seen, by number and pid.
        self._rows: set[tuple[int, int]] = set()
        self._child: ChildAgent | None = None
        self._take_census(warm=False)
        if self.channel is not None:
            self._census.share_pages()
        self._running = RunningHere(self.shared)
        self.meter = self._make_meter() if self.channel is None else None
        overlapping = self.meter if self.pool != "solo" else None
        self._shares = Shares(self._readings, overlapping)
        if overlapping is not None:
            overlapping.containers = self._shares
        self._reporter = self._make_reporter()

    def _shape(self) -> Shape:
        worker, max_tasks = self.worker, self.settings.max_tasks
        most = max(worker.concurrency, getattr(worker, "max_concurrency", None) or 0)
        if self.pool == "prefork":
            return Shape.of(most + SPARE_SLOTS, max_tasks)
        return Shape.of_one(most, max_tasks)

    @guarded
    def _find_predecessors(self, folder: StateFolder | None) -> Predecessors:
        left = predecessors(folder, self.worker.hostname, self.state.name) if folder else []
        return Predecessors(left, self.settings.max_tasks, self.settings.interval_seconds)

    def _make_inheritance(self) -> Inheritance | None:
        if self.channel is None:
            return None
        common = self.settings, self._readings, self.child_memory_limit_bytes
        return Inheritance.of(self.channel, *common)

    def _make_reporter(self) -> Reporter:
        return Reporter(
            Sources(
                worker=self.worker,
                pool=self.pool,
                settings=self.settings,
                ledger=self.ledger,
                shares=self._shares,
                requests=self.requests,
                child_memory_limit_bytes=self.child_memory_limit_bytes,
            )
        )

    def _make_meter(self) -> Meter:
        """Of the runs in this process; their totals are the main process's own."""
        audits = self.settings.audits and self.pool == "solo"
        meter = calibrated_meter(
            self.guard,
            self._readings,
            Conditions(self.settings.max_tasks, audits=audits),
            on_open=self._running.begin,
            on_close=self._after_run,
        )
        meter.totals.new_row = self._new_row
        self.ledger.main.tasks = meter.measurements().totals
        reference = weakref.ref(self)

        def after_fork() -> None:
            agent = reference()
            if agent is not None:
                agent.after_fork()

        os.register_at_fork(after_in_child=after_fork)
        return meter

    def _new_row(self, key: TaskKey) -> TaskTotals:
        return self.shared.new_row(0, os.getpid(), key) or TaskTotals()

    @guarded
    def after_fork(self) -> None:
        """In a process that a task forked: what it runs on is none of this worker's."""
        self._running.forget()
        for row in self.ledger.main.tasks.values():
            row.part()

    # --- in a prefork child ----------------------------------------------------------------------

    @guarded
    def start_child(self) -> None:
        """Runs in each child after the fork, when Celery has built its tracers."""
        from billiard import current_process

        assert self._inheritance is not None
        slot = getattr(current_process(), "index", -1)
        self._child = ChildAgent(self._inheritance, slot, self._census.forked())
        os.register_at_fork(before=self._child.before_fork, after_in_child=self._child.after_fork)
        wrap_tasks(self._child.meter, self.worker.app.tasks)

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
        # Of tasks that came after the worker was made.
        if self.requests.count_tasks(self.worker.app.tasks):
            consumer.update_strategies()
        self.requests.follow(consumer)

    def wrap_tasks(self) -> None:
        if self.meter is not None:
            wrap_tasks(self.meter, self.worker.app.tasks)

    @guarded
    def look(self) -> None:
        """Reads what the children wrote, ends the totals of those that are gone, and notes what all
        runs together left."""
        if self.channel is not None:
            self._look_at_children()
            self._reporter.look_for_holders()
        self._shares.look(self.ledger.processes())
        self._shares.search()

    def _look_at_children(self) -> None:
        self._drain()
        rows = list(self.shared.rows(self._rows))  # before the pool, which has all their owners
        pool = {process.pid: process for process in self._children() if process.pid}
        for pid, process in pool.items():
            self.ledger.add_child(pid, process.index, procfs.start_ticks(pid))
        self.ledger.show_rows(rows)
        self._rows.update((row.number, row.pid) for row in rows)
        gone = {pid for pid in self.ledger.children if pid not in pool}
        self._drain()  # what those wrote last is in the pipe by now, and in their rows
        if gone:
            self._end(gone)
        self._pool_processes = pool

    def _end(self, gone: set[int]) -> None:
        """What these children's runs came to is the worker's own now, and their rows are free."""
        rows = [row for row in self.shared.rows() if row.pid in gone]
        self.ledger.show_rows(rows)
        for pid in gone:
            self._remove(pid, self._pool_processes.get(pid))
        self.keeper.keep(counted=rows)
        for row in rows:
            self.shared.free(row.number)
        self._rows = {(number, pid) for number, pid in self._rows if pid not in gone}

    def _children(self) -> list[Any]:
        """The pool's; none when it has ended."""
        pool = self.worker.pool._pool
        return list(pool._pool) if pool is not None else []

    def report(self, reports_dropped: int, *, final: bool = False) -> WorkerReport:
        """The worker as it is now. ``final``: it has stopped."""
        if self.meter is None:
            return self._report(reports_dropped, final=final)
        self.wrap_tasks()
        with self.meter.occupancy.housekeeping():
            return self._report(reports_dropped, final=final)

    @guarded
    def begin(self) -> None:
        """Before the first task: from now on something outlives the worker."""
        if self.keeper.wants_report:
            self._measure_main()
            native = self._readings.native_live() is not None
            self.keeper.keep(encode(self._reporter.first(native=native)))

    # --- parts -----------------------------------------------------------------------------------

    def _drain(self) -> None:
        assert self.channel is not None
        for record in self.channel.receive():
            self.ledger.apply(record)

    def _remove(self, pid: int, process: Any) -> None:
        child = self.ledger.children[pid]
        state = self.shared.take(child.slot, pid)
        running = state.task if state is not None and state.since else None
        reason = self._exits.reason(child, getattr(process, "exitcode", None))
        self.ledger.remove_child(pid, reason, running if child.exit_code is None else None)

    def _after_run(self, *_: object) -> None:
        """Outside prefork. A pool that is busy all the time rests between two runs, if ever."""
        self._running.end()
        self._peak = max(self._peak, self._readings.peak())
        self._shares.look([self.ledger.main])

    @guarded
    def _take_census(self, *, warm: bool) -> None:
        self._census.take(warm=warm)
        self.ledger.main.types = self._census.types()

    def _report(self, reports_dropped: int, *, final: bool) -> WorkerReport:
        self._measure_main()
        native = self._readings.native_live() is not None
        return self._reporter.report(native=native, reports_dropped=reports_dropped, final=final)

    def _measure_main(self) -> None:
        """Takes this process's own figures, as children send theirs through the pipe."""
        now = time.monotonic()
        if self._census.due(now, idle=self.meter is not None and self.meter.occupancy.idle):
            self._take_census(warm=now - self._started >= WARM_SECONDS)
        main = self.ledger.main
        peak = max(self._peak, self._readings.peak())
        main.figures = own_figures(self._readings, objects=self._census.objects, peak_bytes=peak)
        main.costs = Costs(errors=self.guard.errors)
        if self.meter is not None:
            self._take_measurements(self.meter.measurements())

    def _take_measurements(self, measured: Measurements) -> None:
        main = self.ledger.main
        main.costs = measured.costs
        main.containers = measured.containers or self._shares.containers()
        rows = {row.path: row for row in main.containers}
        for key, grown in list(measured.growth.items()):
            for record in evidence_records(
                os.getpid(), key, grown, measured.dossiers.get(key), rows
            ):
                main.apply(record)
