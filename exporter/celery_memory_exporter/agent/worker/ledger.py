"""The main process's books about its pool children: what each told, and the totals that outlive it.
No I/O.

Records arrive in the order that each child wrote them and are cumulative per child; a child's rows
become part of the worker's own when it is gone, without what ended with it (live memory).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from celery_memory_exporter.agent.heap import census
from celery_memory_exporter.agent.heap.census import TypeCount
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.stats import profile, tally
from celery_memory_exporter.agent.stats.profile import ProfileRow, Retained
from celery_memory_exporter.agent.stats.row import sum_of
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.agent.worker import evidence
from celery_memory_exporter.agent.worker.channel import Record
from celery_memory_exporter.agent.worker.evidence import Words
from celery_memory_exporter.agent.worker.history import History


@dataclass(slots=True)
class Costs:
    """What the agent itself used and could not do in a process."""

    seconds: float = 0.0
    errors: int = 0
    tasks_folded: int = 0

    def add(self, other: Costs) -> None:
        self.seconds += other.seconds
        self.errors += other.errors
        self.tasks_folded += other.tasks_folded


@dataclass(slots=True)
class Account:
    """One living process: a pool child, or the main process itself."""

    slot: int
    start_ticks: int | None
    #: Monotonic seconds at which it was first seen.
    since: float = field(default_factory=time.monotonic)
    rows: dict[TaskKey, TaskTotals] = field(default_factory=dict)
    words: dict[TaskKey, Words] = field(default_factory=dict)
    containers: list[GrowingContainer] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    types: dict[str, TypeCount] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)
    #: Told by a child that ends by itself.
    exit_code: int | None = None
    peak_bytes: int = 0


class Ledger:
    """Living children by pid, and what is left of those gone."""

    def __init__(self, max_tasks: int) -> None:
        self.children: dict[int, Account] = {}
        self.started = 0
        self.exited: Counter[str] = Counter()
        self.lost: Counter[tuple[str, str]] = Counter()
        self.costs = Costs()
        self._max_tasks = max_tasks
        self._admitted: set[TaskKey] = {tally.OTHER}
        self._rows: dict[TaskKey, TaskTotals] = {}
        self._words: dict[TaskKey, Words] = {}

    def open_account(self, pid: int, slot: int, start_ticks: int | None) -> None:
        if pid not in self.children:
            self.started += 1
            self.children[pid] = Account(slot, start_ticks)

    def apply(self, record: Record) -> None:
        """Books one record. Of a child whose ``hello`` found the pipe full nothing is booked until
        the pool shows it."""
        kind, pid, *rest = record
        if kind == "hello":
            self.open_account(pid, *rest)
            return
        account = self.children.get(pid)
        if account is None:
            return
        if kind == "row":
            name, queue, data = rest
            account.rows[name, queue] = TaskTotals.from_bytes(data)
        elif kind == "process":
            account.figures, costs = rest
            account.costs = Costs(*costs)
        elif kind == "types":
            account.types = census.known(account.types, rest[0])
        elif kind in evidence.KINDS:
            name, queue, *told = rest
            evidence.apply(account.words.setdefault((name, queue), Words()), kind, told)
        elif kind == "containers":
            account.containers = [GrowingContainer(*row) for row in rest[0]]
        elif kind == "bye":
            account.exit_code, account.peak_bytes = rest

    def close_account(self, pid: int, reason: str, running: str | None) -> None:
        """A child is gone. ``running`` is the task it was in, when it did not end by itself."""
        account = self.children.pop(pid)
        self.exited[reason] += 1
        if running:
            key = (running, reason)
            self.lost[
                key if key in self.lost or len(self.lost) < self._max_tasks else ("other", reason)
            ] += 1
        for task, row in account.rows.items():
            kept = self._key(task)
            self._rows[kept] = sum_of([self._rows[kept], row]) if kept in self._rows else row
        for task, words in account.words.items():
            kept = self._key(task)
            gone = [self._words[kept]] if kept in self._words else []
            self._words[kept] = evidence.faded(evidence.together([*gone, words]))
        self.costs.add(account.costs)

    def rows(self, extra: Iterable[Account] = ()) -> dict[TaskKey, TaskTotals]:
        """Per task type the sum over the gone, the living and ``extra`` accounts."""
        grouped: dict[TaskKey, list[TaskTotals]] = {key: [row] for key, row in self._rows.items()}
        for account in [*self.children.values(), *extra]:
            # A copy: in the threads pool the main process's own rows grow meanwhile.
            for key, row in list(account.rows.items()):
                grouped.setdefault(self._key(key), []).append(row)
        return {key: sum_of(rows) for key, rows in grouped.items()}

    def words(self, extra: Iterable[Account] = ()) -> dict[TaskKey, Words]:
        """Per task type what all processes tell, gone ones included."""
        grouped: dict[TaskKey, list[Words]] = {key: [words] for key, words in self._words.items()}
        for account in [*self.children.values(), *extra]:
            for key, words in account.words.items():
                grouped.setdefault(self._key(key), []).append(words)
        return {key: evidence.together(parts) for key, parts in grouped.items()}

    def retained(self, extra: Iterable[Account] = ()) -> dict[TaskKey, Retained]:
        """Per task type: blocks and native bytes that are left behind in living processes, and the
        runs behind these figures."""
        rows: dict[TaskKey, list[ProfileRow]] = {}
        for account in [*self.children.values(), *extra]:
            for key, words in account.words.items():
                rows.setdefault(self._key(key), []).append(words.row)
        return {key: profile.retained(parts) for key, parts in rows.items()}

    def containers(self, extra: Iterable[Account] = ()) -> list[GrowingContainer]:
        """Growing containers by path, summed over living processes, the fastest growing first."""
        by_path: dict[str, GrowingContainer] = {}
        for account in [*self.children.values(), *extra]:
            for row in account.containers:
                before = by_path.get(
                    row.path, GrowingContainer(row.path, row.kind, 0, 0, row.capacity)
                )
                by_path[row.path] = replace(
                    row, items=row.items + before.items, growth=row.growth + before.growth
                )
        return sorted(by_path.values(), key=lambda row: -row.growth)

    def types(self, extra: Iterable[Account] = ()) -> dict[str, TypeCount]:
        summed: dict[str, TypeCount] = {}
        for account in [*self.children.values(), *extra]:
            for name, (count, grown, recent) in account.types.items():
                before = summed.get(name, (0, 0, 0))
                summed[name] = (before[0] + count, before[1] + grown, before[2] + recent)
        return summed

    def _key(self, key: TaskKey) -> TaskKey:
        """Children may each know other task types: the cap holds for the worker. A type once told
        apart stays so."""
        if key not in self._admitted:
            if len(self._admitted) > self._max_tasks:  # OTHER is in there, too
                return tally.OTHER
            self._admitted.add(key)
        return key


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
