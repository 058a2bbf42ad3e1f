"""The workers that are known: who is let in, who counts as silent, and who has an agent.

Reading tells how things stand at ``now`` and changes nothing; ``forget`` makes it so for good.

Only used by the fleet, which has the lock and says what time it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from celery_memory_exporter.common.report import WorkerReport
from celery_memory_exporter.common.traffic import Counts
from celery_memory_exporter.fleet import groups
from celery_memory_exporter.fleet.facts import Identity, SharedMemory, WorkerProcesses
from celery_memory_exporter.fleet.matching import UNKNOWN_BROKER, Key, named
from celery_memory_exporter.fleet.partial import completed
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import GroupView, WorkerView
from celery_memory_exporter.fleet.totals import Totals
from celery_memory_exporter.fleet.worker import WorkerState
from celery_memory_exporter.fleet.worker_tasks import WorkerTasks

#: How long the process table holds without a new reading, in seconds: six of its default intervals.
TABLE_FRESH_SECONDS = 30.0


class Workers:
    """Workers by broker and nodename, ``limits.workers`` of them at most."""

    def __init__(self, rules: Rules, brokers: Sequence[str], began: float) -> None:
        self._rules = rules
        self._brokers = brokers
        self._table_at = float("-inf")
        self._workers: dict[Key, WorkerState] = {}
        #: An index: each event of a client asks whether there is one.
        self._without_agent: set[Key] = set()
        self._groups = groups.Groups(rules.worker_groups, rules.limits, began)

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[WorkerState]:
        return iter(self._workers.values())

    @property
    def all_have_agents(self) -> bool:
        """Whether there are workers, and each has a report."""
        return bool(self._workers) and not self._without_agent

    # --- writing ---------------------------------------------------------------------------------

    def admit(self, broker: str, nodename: str, now: float) -> WorkerState | None:
        """The worker, which is made on first sight; ``None`` when there is no room for it."""
        worker = self._workers.get((broker, nodename))
        if worker is not None:
            return worker
        limits = self._rules.limits
        if len(self._workers) >= limits.workers:
            return None
        self._remove((UNKNOWN_BROKER, nodename))  # it was seen before it was heard
        counts = Counts(
            max_tasks=limits.tasks_per_worker,
            max_exceptions=limits.exceptions_per_task,
            runtime=self._rules.runtime_seconds,
            queue_wait=self._rules.queue_wait_seconds,
        )
        worker = WorkerState(nodename, broker, now, WorkerTasks(counts))
        worker.group = self._groups.of(broker, nodename)
        if worker.group is not None:
            worker.admitted = worker.group.admitted
        self._workers[worker.key] = worker
        self._without_agent.add(worker.key)
        return worker

    def take_report(
        self, worker: WorkerState, report: WorkerReport, now: float, age: float | None
    ) -> None:
        """Replaces what the worker's agent told before. ``report`` is within the limits; ``age`` is
        the worker's in seconds, where it is known."""
        new = worker.report is None or worker.report.instance != report.instance
        before = worker.totals() if new and worker.group is not None else None
        worker.report = completed(report, worker.report)
        worker.reported = worker.seen = now
        worker.offline = bool(report.final)
        self._without_agent.discard(worker.key)
        if worker.group is not None:
            first = worker.totals() if new else None
            if first is not None:
                started = None if age is None else now - age
                worker.group.join(first, before, new=self._groups.is_new(report, started))
            # The group has it now, or the agent, which goes on counting while it is not heard.
            worker.begin_anew()

    def forget(self, now: float) -> list[WorkerState]:
        """Workers that have been silent for too long, which are forgotten, and reports that have
        expired: such a worker goes on without its agent."""
        for group, totals in self._leaving(now):
            self._groups.lose(group, totals, now)
        gone = self.silent(now)
        for worker in gone:
            self._remove(worker.key)
        for worker in self:
            if self._has_expired_report(worker, now):
                worker.report = None
                self._without_agent.add(worker.key)
        self._groups.forget(self._groups_alive(now))
        return gone

    def take_table(self, table: Iterable[WorkerProcesses], now: float) -> int:
        """Replaces what the process table told before; for how many of its workers there was no
        room."""
        self._table_at = now
        before = {worker.key: worker.table.main.identity for worker in self if worker.table}
        for worker in self:
            worker.table = None
        refused = 0
        mains: dict[Identity, Key] = {}
        reports = {worker.key: worker.report for worker in self}
        for key, processes in named(
            table, reports, boot_id=self._rules.boot_id, brokers=self._brokers
        ):
            shown = self.admit(*key, now)
            if shown is None:
                refused += 1
                continue
            shown.seen = now
            shown.take_table(processes)
            mains[processes.main.identity] = key
        self._forget_guesses(
            key for key, identity in before.items() if mains.get(identity, key) != key
        )
        return refused

    # --- reading ---------------------------------------------------------------------------------

    def silent(self, now: float) -> list[WorkerState]:
        """Workers that nothing has told of for too long."""
        return [worker for worker in self if self._is_silent(worker, now)]

    def at(self, now: float) -> list[WorkerState]:
        """Workers as they count at ``now``, by broker and nodename. To be read only."""
        return [
            worker.without_report() if self._has_expired_report(worker, now) else worker
            for _, worker in sorted(self._workers.items())
            if not self._is_silent(worker, now)
        ]

    def view(
        self, worker: WorkerState, now: float, shared: Mapping[Identity, SharedMemory]
    ) -> WorkerView:
        """How one of ``at(now)`` is shown."""
        table_holds = now - self._table_at <= TABLE_FRESH_SECONDS
        return worker.view(
            now,
            in_table=table_holds and worker.table is not None,
            timeout=self._rules.heartbeat_timeout_seconds,
            shared=shared,
        )

    def group_views(self, views: Iterable[WorkerView], now: float) -> tuple[GroupView, ...]:
        """What is shown at ``now``, out of the ``views`` of all ``at(now)``."""
        leaving: dict[Key, list[Totals]] = {}
        for group, totals in self._leaving(now):
            leaving.setdefault(group.key, []).append(totals)
        kept = self._groups.kept(self._groups_alive(now), leaving)
        members: dict[Key, list[WorkerView]] = {}
        for view in views:
            members.setdefault((view.broker, view.nodename), []).append(view)
        return tuple(GroupView(tuple(each), kept.get(key)) for key, each in members.items())

    # --- parts -----------------------------------------------------------------------------------

    def _forget_guesses(self, renamed: Iterable[Key]) -> None:
        """Names whose process has another one now, because its agent has told it: from outside, a
        container's hostname may not be read. Nobody else ever had them."""
        for key in renamed:
            worker = self._workers.get(key)
            if worker is not None and worker.only_seen():
                self._remove(key)

    def _is_silent(self, worker: WorkerState, now: float) -> bool:
        return now - worker.seen > self._rules.expire_after_seconds

    def _has_expired_report(self, worker: WorkerState, now: float) -> bool:
        expire_after_seconds = self._rules.expire_after_seconds
        return worker.report is not None and now - worker.reported > expire_after_seconds

    def _leaving(self, now: float) -> Iterator[tuple[groups.Group, Totals]]:
        """What was counted by members' agents that are silent, and without an agent of members that
        are."""
        for worker in self:
            if worker.group is None:
                continue
            ended = [worker] if self._has_expired_report(worker, now) else []
            if self._is_silent(worker, now):
                ended.append(worker.without_report())
            for part in ended:
                totals = part.totals()
                if totals is not None:
                    yield worker.group, totals

    def _groups_alive(self, now: float) -> set[Key]:
        return {
            worker.group.key
            for worker in self
            if worker.group is not None and not self._is_silent(worker, now)
        }

    def _remove(self, key: Key) -> None:
        self._workers.pop(key, None)
        self._without_agent.discard(key)


def refusal(held: WorkerReport | None, new: WorkerReport) -> str | None:
    """Why a report must not replace the one that is held, if so."""
    if held is None:
        return None
    if held.instance == new.instance:
        if new.sequence == held.sequence:
            return "duplicate"
        return "stale" if new.sequence < held.sequence else None
    return "stale" if new.instance.started_at < held.instance.started_at else None


def consumers(workers: Iterable[WorkerState]) -> dict[tuple[str, str], tuple[int, int]]:
    """By broker and queue: how many of the workers consume it, and with how many processes."""
    counted: dict[tuple[str, str], tuple[int, int]] = {}
    for worker in workers:
        for queue in worker.consumed():
            count, processes = counted.get((worker.broker, queue), (0, 0))
            counted[worker.broker, queue] = count + 1, processes + worker.pool_processes()
    return counted
