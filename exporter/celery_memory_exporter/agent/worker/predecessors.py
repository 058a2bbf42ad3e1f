"""What workers of this nodename left that were killed, or that ended while their broker was away:
each one's last report, which this worker sends for it.

It is the dead worker's own in every respect, with its instance and its next number: however often
it is sent, it counts once. It is sent twice, since no broker tells whether anybody was there to
hear it: what killed the worker may have cut off the exporter as well. In it is what was counted
until the very end, and the tasks that were running then as lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.agent.stats.profile import Retained
from celery_memory_exporter.agent.stats.row import sum_of
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.agent.worker.journal import Journal
from celery_memory_exporter.agent.worker.requests import SUCCEEDED, note
from celery_memory_exporter.agent.worker.shared_map import Shape, SharedMap
from celery_memory_exporter.agent.worker.state import MAP, TOLD, begin_of, prefix_of, remove
from celery_memory_exporter.agent.worker.state_folder import StateFolder
from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.codec import MAX_MESSAGE_BYTES, encode
from celery_memory_exporter.common.names import short_name
from celery_memory_exporter.common.traffic import Counts

#: More of one nodename are removed unread, the oldest first; of all nodenames as well.
MAX_LEFT, MAX_FILES = 20, 200
#: Between the two sendings of a report, of an interval: clocks that are set may make one shorter.
BETWEEN = 0.9
#: A worker that has been starting for so long and never had a report is dead.
STARTING_SECONDS = 600.0
#: Longer than any that a worker of this version makes.
MAX_MAP_BYTES = Shape.of(1024, 10_000).size + Shape.of(1, 10_000).size
#: What is told of the present of processes that are no more.
PRESENT = ("active", "prefetched")
LISTS_OF_THE_PRESENT = ("processes", "objects", "containers", "running")


class Predecessor:
    """A dead worker's files, which nobody else has."""

    def __init__(self, folder: StateFolder, name: str, file: int) -> None:
        """Raises ``OSError`` or ``ValueError`` where they are not what a worker leaves."""
        self._folder, self._name, self._file = folder, name, file
        self._told = told = json.loads(folder.read(name + TOLD, 2 * MAX_MESSAGE_BYTES))
        size = os.fstat(file).st_size
        if size > MAX_MAP_BYTES:
            raise ValueError("too long for a map")
        self._report: dict[str, Any] = told["report"]
        self._kept: list[list[Any]] = told["kept"]
        self._counted = {tuple(pair) for pair in told["counted"]}
        self._journal: int = told["journal"]
        self._shared = SharedMap.left(mmap.mmap(file, size))

    @property
    def started_at(self) -> float:
        return float(self._report["instance"]["started_at"])

    @property
    def alive(self) -> bool:
        """Whether its main process is still there all the same: a task may have closed the file
        that bore the lock."""
        instance = self._report["instance"]
        here = procfs.boot_id(), procfs.pid_namespace()
        if (instance["boot_id"], instance.get("pid_namespace")) != here:
            return False
        ticks = procfs.start_ticks(instance["pid"])
        return ticks is not None and ticks == instance.get("start_ticks")

    def report(self, max_tasks: int) -> dict[str, Any]:
        """The last report, as ``codec.encode`` makes them."""
        report = {key: value for key, value in self._report.items() if key not in PRESENT}
        report |= {name: [] for name in LISTS_OF_THE_PRESENT}
        report |= {"sequence": report["sequence"] + 1, "final": 0}
        report |= self._ends()
        totals = self._totals(max_tasks)
        report["tasks"] = self._tasks(totals)
        report["traffic"] = self._traffic(totals, max_tasks)
        return report

    def sent(self, now: float) -> float:
        """Its report has been sent ``now``; for how many seconds it has been told of. When that
        began is noted for workers after this one as well. Raises ``OSError``."""
        if "sent" not in self._told:
            self._told["sent"] = now
            self._folder.write(self._name + TOLD, json.dumps(self._told).encode())
        return abs(now - float(self._told["sent"]))

    def discard(self) -> None:
        """All has been told of it. Raises ``OSError``."""
        try:
            remove(self._folder, self._name)
        finally:
            self.leave()

    def leave(self) -> None:
        """For the next one to find."""
        with contextlib.suppress(OSError):
            os.close(self._file)

    # --- parts -----------------------------------------------------------------------------------

    def _ends(self) -> dict[str, Any]:
        """How its processes ended that were there until the end, and what they were doing."""
        kills = procfs.cgroup_memory().oom_kills
        told = self._report["cgroup"].get("oom_kills")
        reason = "oom" if kills is not None and told is not None and kills > told else "signal"
        states = self._shared.states()
        main = self._report["instance"]["pid"]
        exited = Counter(self._report["children_exited"])
        children = len({state.pid for state in states if state.pid != main})
        if children:
            exited[reason] += children
        lost = Counter({(row["name"], row["reason"]): row["count"] for row in self._report["lost"]})
        lost.update((short_name(state.task), reason) for state in states if state.since)
        return {
            "children_exited": dict(exited),
            "children_started": max(self._report["children_started"], exited.total()),
            "lost": [
                {"name": name, "reason": why, "count": count}
                for (name, why), count in sorted(lost.items())
            ],
        }

    def _tasks(self, counted: dict[TaskKey, TaskTotals]) -> list[dict[str, Any]]:
        told = {(task["name"], task["queue"]): task for task in self._report["tasks"]}
        return [
            self._task(told.get(key, {}), key, totals) for key, totals in sorted(counted.items())
        ]

    def _totals(self, max_tasks: int) -> dict[TaskKey, TaskTotals]:
        grouped: dict[TaskKey, list[TaskTotals]] = {}
        for name, queue, figures in self._kept:
            grouped[name, queue] = [TaskTotals.of(figures)]
        for row in self._shared.rows():
            if (row.number, row.pid) not in self._counted:
                known = row.key in grouped or len(grouped) < max_tasks
                grouped.setdefault(row.key if known else tally.OTHER, []).append(row.totals)
        return {key: sum_of(rows) for key, rows in grouped.items()}

    @staticmethod
    def _task(told: dict[str, Any], key: TaskKey, totals: TaskTotals) -> dict[str, Any]:
        """As it was told, with what was counted since."""
        native, peak = "retained_native_bytes" in told, "peak" in told
        row = tally.to_report(
            key, totals, retained=Retained(), evidence=None, native=native, peak=peak
        )
        evidence = {"evidence": told["evidence"]} if "evidence" in told else {}
        return encode(row) | evidence

    def _traffic(self, counted: dict[TaskKey, TaskTotals], max_tasks: int) -> list[dict[str, Any]]:
        bounds = self._report["bounds"]
        counts = Counts(
            max_tasks=max_tasks,
            runtime=bounds["runtime_seconds"],
            queue_wait=bounds["queue_wait_seconds"],
        )
        counts.restore(self._report["traffic"])
        for event in Journal(self._shared.journal).events(self._journal):
            note(counts, event)
        if not any(self._report["dropped"].values()):
            add_unheard(counts, counted)
        return [encode(row) for row in counts.reports()]


def add_unheard(counts: Counts, counted: dict[TaskKey, TaskTotals]) -> None:
    """Counts tasks that succeeded, of which the main process did not live to hear."""
    told = counts.succeeded()
    ended: Counter[str] = Counter()
    queues: dict[str, str] = {}
    for (name, queue), totals in counted.items():
        ended[name] += totals.runs_by_outcome.get("succeeded", 0)
        queues.setdefault(name, queue)
    for name, runs in ended.items():
        by_queue = told.get(name, {queues[name]: 0})
        for _ in range(runs - sum(by_queue.values())):
            note(counts, (SUCCEEDED, name, max(by_queue, key=by_queue.__getitem__), None, None))


class Predecessors:
    """Of one worker, which sends one after the other."""

    def __init__(self, left: Iterable[Predecessor], max_tasks: int, interval: float) -> None:
        """``interval``: between two reports, in seconds."""
        self._left = list(left)
        self._max_tasks = max_tasks
        self._between = BETWEEN * interval

    def __len__(self) -> int:
        return len(self._left)

    def tell(self, send: Callable[[dict[str, Any]], bool], now: float) -> Iterator[bool]:
        """Sends the last report of each, the oldest first; whether all has been told of it, and it
        is removed. What cannot be read is removed at once. ``now``: Unix time. Raises
        ``OSError``."""
        for each in list(self._left):
            try:
                report = each.report(self._max_tasks)
            except (ValueError, LookupError, TypeError, EOFError):
                self._remove(each)
                continue
            done = send(report) and each.sent(now) >= self._between
            if done:
                self._remove(each)
            yield done

    def _remove(self, one: Predecessor) -> None:
        self._left.remove(one)
        one.discard()


def predecessors(folder: StateFolder, nodename: str, own: str) -> list[Predecessor]:
    """Those whose files nobody else has, the oldest first. ``own``: this worker's, which must not
    be opened: to close it again would give up its lock. Raises ``OSError``."""
    files = folder.names()
    names = {name.removesuffix(MAP) for name in files if name.endswith(MAP)} - {own}
    for name in {name.partition(TOLD)[0] for name in files if TOLD in name} - names - {own}:
        remove(folder, name)  # somebody has cleared the map away
    mine = [name for name in names if name.startswith(prefix_of(nodename))]
    found = [left for name in mine if (left := claimed(folder, name)) is not None]
    found.sort(key=lambda left: left.started_at)
    surplus = found[:-MAX_LEFT]
    others = sorted(names.difference(mine), key=begin_of)[:-MAX_FILES]
    surplus += [left for name in others if (left := claimed(folder, name)) is not None]
    for left in surplus:
        left.discard()
    return found[-MAX_LEFT:]


def claimed(folder: StateFolder, name: str) -> Predecessor | None:
    """What the worker of these files left; ``None`` while it lives, when another worker has them,
    or when there is nothing in them, and then they are removed. Raises ``OSError``."""
    try:
        file = folder.open(name + MAP)
    except FileNotFoundError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(file).st_nlink:
            raise FileNotFoundError(name)
    except OSError:
        os.close(file)
        return None
    try:
        left = Predecessor(folder, name, file)
        alive = left.alive
    except FileNotFoundError:
        # Of one that was killed before its first task, or that is just about to start.
        if time.time() - os.fstat(file).st_mtime > STARTING_SECONDS:
            remove(folder, name)
        os.close(file)
        return None
    except (OSError, ValueError, LookupError, TypeError):
        remove(folder, name)  # of another version of the agent
        os.close(file)
        return None
    if alive:
        left.leave()
        return None
    return left
