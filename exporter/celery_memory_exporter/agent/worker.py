"""The agent in the worker's main process: keeps the books of all processes and reports once per interval.

Two bootsteps, because they live differently. ``AgentStep`` belongs to the worker: it is made before the pool forks,
so that children inherit the channel. ``ReportStep`` belongs to the consumer, which Celery stops and starts at every
reconnect: it has the timer.

With prefork the children measure; with solo, threads, gevent and eventlet tasks run in the main process, and it measures itself.
"""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import celery
from celery import bootsteps
from celery.signals import worker_process_init, worker_process_shutdown

from celery_memory_exporter import __version__, procfs
from celery_memory_exporter.agent import census, tally
from celery_memory_exporter.agent.channel import Channel
from celery_memory_exporter.agent.child import WARM_SECONDS, ChildAgent, interpreter_figures
from celery_memory_exporter.agent.guard import Guard, guarded
from celery_memory_exporter.agent.ledger import Account, Costs, Ledger, TopTypes
from celery_memory_exporter.agent.meter import Meter
from celery_memory_exporter.agent.readings import Readings
from celery_memory_exporter.agent.sender import ReportSender
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.report import (
    Instance,
    LostRuns,
    ObjectCount,
    ProcessReport,
    WorkerReport,
    encode,
)

#: How often the main process looks at pipe and pool. A child that ends by itself stays for a second (billiard), so none is missed.
TICK_SECONDS = 0.5
#: The first report comes soon: whoever turns the agent on waits for it.
FIRST_REPORT_SECONDS = 2.0
#: billiard's exit status of a child that reached its task or memory limit.
EX_RECYCLE = 155
SIGKILL = 9


def pool_name(pool_class: Any) -> str:
    """``prefork``, ``solo``, ``threads``, ``gevent``, ``eventlet`` or a custom pool's module. ``app.conf`` does not know ``-P``."""
    name = str(pool_class.__module__).rpartition(".")[2]
    return "threads" if name == "thread" else name


class WorkerAgent:
    """One per worker: everything that is known about its processes."""

    def __init__(self, worker: Any, settings: Settings) -> None:
        self.guard = Guard()
        self.settings = settings
        self.worker = worker
        self.pool = pool_name(worker.pool_cls)
        self.ledger = Ledger(settings.max_tasks)
        self.channel = Channel() if self.pool == "prefork" else None
        self._readings = Readings()
        self._peak = self._readings.peak()
        self._self = Account(slot=-1, start_ticks=procfs.start_ticks())
        self._census = census.Census(
            settings.census_seconds, settings.census_pause_seconds, enabled=settings.census_max_objects > 0
        )
        self._top = TopTypes(settings.max_object_types)
        self._instance = Instance(procfs.boot_id(), procfs.pid_namespace(), os.getpid(), self._self.start_ticks, time.time())
        self._sequence = 0
        self._started = time.monotonic()
        self._pool_processes: dict[int, Any] = {}
        self._oom_kills = procfs.cgroup_memory().oom_kills
        limit = worker.max_memory_per_child if self.channel else None
        self.child_memory_limit_bytes = int(limit) * 1024 if limit else None
        self._child: ChildAgent | None = None
        self._take_census(warm=False)
        self.meter: Meter | None = None
        if self.channel is None:
            self.meter = Meter(self.guard, self._readings, max_tasks=settings.max_tasks, on_close=self._keep_peak)
            self._self.rows, self._self.exceptions = self.meter.rows, self.meter.exceptions

    # --- in a prefork child -----------------------------------------------------------------------------------------

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
        self._child = ChildAgent(self.channel, settings, slot, self.child_memory_limit_bytes, counting)
        os.register_at_fork(before=self._child.stop_helper)
        self._child.meter.wrap_tasks(self.worker.app.tasks)

    def end_child(self, exit_code: int) -> None:
        if self._child is not None:
            self._child.end(exit_code)

    # --- in the main process ----------------------------------------------------------------------------------------

    def wrap_tasks(self) -> None:
        """Outside prefork: the consumer builds new tracers at each (re)start."""
        if self.meter is not None:
            self.meter.wrap_tasks(self.worker.app.tasks)

    @guarded
    def look(self) -> None:
        """Reads what the children wrote and closes the accounts of those that are gone."""
        if self.channel is None:
            return
        self._drain()
        pool = {process.pid: process for process in list(self.worker.pool._pool._pool) if process.pid}
        for pid, process in pool.items():
            self.ledger.open_account(pid, process.index, procfs.start_ticks(pid))
        gone = [pid for pid in self.ledger.children if pid not in pool]
        self._drain()  # what those wrote last is in the pipe by now
        for pid in gone:
            self._close(pid, self._pool_processes.get(pid))
        self._pool_processes = pool

    def report(self, reports_dropped: int) -> WorkerReport:
        """The worker as it is now."""
        self._sequence += 1
        if self.meter is not None:
            self.wrap_tasks()
            with self.meter.housekeeping():
                return self._report(reports_dropped)
        return self._report(reports_dropped)

    # --- parts ------------------------------------------------------------------------------------------------------

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
        # Also of a child that came and went between two looks, without a word: only a kill keeps one from telling.
        return "oom" if exit_code in (-SIGKILL, None) and self._take_oom_kill() else "signal"

    def _take_oom_kill(self) -> bool:
        """Whether the kernel's count of OOM kills in this cgroup explains one more SIGKILL."""
        now = procfs.cgroup_memory().oom_kills
        if now is None or self._oom_kills is None or now <= self._oom_kills:
            return False
        self._oom_kills += 1
        return True

    def _keep_peak(self, _: tally.TaskKey) -> None:
        self._peak = max(self._peak, self._readings.peak())

    @guarded
    def _take_census(self, *, warm: bool) -> None:
        self._census.take(warm=warm)
        self._self.types = self._census.rows()

    def _measure_self(self) -> None:
        now = time.monotonic()
        if self._census.due(now, idle=self.meter is not None and self.meter.idle):
            self._take_census(warm=now - self._started >= WARM_SECONDS)
        figures = interpreter_figures(self._readings, self._census.objects)
        figures["peak_rss_bytes"] = max(self._peak, self._readings.peak())
        self._self.figures = figures
        if self.meter is not None:
            self._self.costs = Costs(self.meter.overhead_seconds, 0, self.meter.tasks_folded)

    def _report(self, reports_dropped: int) -> WorkerReport:
        worker = self.worker
        self._measure_self()
        exceptions = self.ledger.exceptions([self._self])
        types = self.ledger.types([self._self])
        native = self._readings.native_live() is not None
        costs = Costs(errors=self.guard.errors)
        for account in [self._self, *self.ledger.children.values()]:
            costs.add(account.costs)
        costs.add(self.ledger.costs)
        # A successor may have been forked since the pool was looked at: the younger one has the slot.
        slots = {child.slot: (pid, child) for pid, child in sorted(self.ledger.children.items(), key=age) if child.slot >= 0}
        return WorkerReport(
            worker=worker.hostname,
            instance=self._instance,
            sequence=self._sequence,
            interval_seconds=self.settings.interval_seconds,
            pool=self.pool,
            concurrency=int(worker.concurrency),
            python_version=platform.python_version(),
            celery_version=celery.__version__,
            agent_version=__version__,
            bounds=tally.BOUNDS,
            processes=[
                process_report("main", os.getpid(), self._self),
                *(process_report(str(slot), pid, child) for slot, (pid, child) in sorted(slots.items())),
            ],
            tasks=[
                tally.to_report(key, row, exceptions.get(key, {}), native=native, peak=self._peaks_known())
                for key, row in sorted(self.ledger.rows([self._self]).items())
            ],
            objects=[ObjectCount(name, *types[name][:2]) for name in self._top.choose(types)],
            lost=[LostRuns(name, reason, count) for (name, reason), count in sorted(self.ledger.lost.items())],
            children_started=self.ledger.started,
            children_exited=dict(self.ledger.exited),
            child_memory_limit_bytes=self.child_memory_limit_bytes,
            cgroup=procfs.cgroup_memory(),
            overhead_seconds=costs.seconds,
            reports_dropped=reports_dropped,
            errors=costs.errors,
            dropped={"tasks": costs.tasks_folded},
        )

    def _peaks_known(self) -> bool:
        return os.access("/proc/self/clear_refs", os.W_OK)


def age(entry: tuple[int, Account]) -> int:
    return entry[1].start_ticks or 0


def process_report(name: str, pid: int, account: Account) -> ProcessReport:
    """What the process told of itself, and what ``/proc`` tells of it now."""
    status = procfs.status(pid)
    figures = dict(account.figures)
    if status is not None:
        figures |= {
            "rss_bytes": status.rss_bytes,
            "anon_bytes": status.anon_bytes,
            "shmem_bytes": status.shmem_bytes,
            "swap_bytes": status.swap_bytes,
            "threads": status.threads,
            "peak_rss_bytes": max(figures.get("peak_rss_bytes") or 0, status.peak_rss_bytes or 0) or None,
        }
    return ProcessReport(
        process=name,
        pid=pid,
        start_ticks=account.start_ticks,
        open_fds=procfs.open_fds(pid),
        max_fds=procfs.max_fds(pid),
        zombies=procfs.zombies(pid),
        **figures,
    )


class AgentStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no type information
    """Worker step: made before the pool starts, so that children inherit the channel."""

    label = "MemoryAgent"

    def __init__(self, worker: Any, **_: Any) -> None:
        worker.memory_agent = None
        settings = worker.app.celery_memory_settings
        self.enabled = settings.enabled
        if self.enabled:
            self._make(worker, settings)

    def _make(self, worker: Any, settings: Settings) -> None:
        try:
            agent = WorkerAgent(worker, settings)
        except Exception:
            Guard().note("WorkerAgent")
            return
        worker.memory_agent = agent
        if agent.channel is not None:
            worker_process_init.connect(lambda **_: agent.start_child(), weak=False)
            worker_process_shutdown.connect(lambda exitcode=0, **_: agent.end_child(exitcode), weak=False)


class ReportStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no type information
    """Consumer step: looks at the children and sends reports, while there is a connection to the broker."""

    label = "MemoryReports"
    # After Tasks, which builds the tracers that are wrapped here.
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **_: Any) -> None:
        self._timer_entry: Any = None
        self._sender: ReportSender | None = None
        self._next_report = 0.0
        self.agent: WorkerAgent | None = getattr(consumer.controller, "memory_agent", None)
        self.guard = self.agent.guard if self.agent else Guard()
        self.enabled = self.agent is not None

    @guarded
    def start(self, consumer: Any) -> None:
        assert self.agent is not None
        self.agent.wrap_tasks()
        self.agent.look()
        settings = self.agent.settings
        dropped = self._sender.dropped if self._sender else 0
        self._sender = ReportSender(consumer.app, consumer.hostname, settings.events_url)
        self._sender.dropped = dropped
        self._next_report = time.monotonic() + min(FIRST_REPORT_SECONDS, settings.interval_seconds)
        self._timer_entry = consumer.timer.call_repeatedly(min(TICK_SECONDS, settings.interval_seconds), self.tick, priority=10)

    @guarded
    def tick(self) -> None:
        assert self.agent is not None
        assert self._sender is not None
        self.agent.look()
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + self.agent.settings.interval_seconds
            self._sender.send(encode(self.agent.report(self._sender.dropped)))

    @guarded
    def close(self, consumer: Any) -> None:
        """The worker is about to stop, with the broker still there: what happened since the last report is told."""
        if self._sender is not None and self.agent is not None:
            self.agent.look()
            self._sender.send(encode(self.agent.report(self._sender.dropped)))

    @guarded
    def stop(self, consumer: Any) -> None:
        if self._timer_entry is not None:
            self._timer_entry.cancel()
            self._timer_entry = None
        if self._sender is not None:
            self._sender.close()
