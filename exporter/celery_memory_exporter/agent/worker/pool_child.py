"""The agent in a prefork child: measures its runs and writes what they add up to into the pipe.

* Each run writes its type's row at once, so a child that is killed loses only the run it dies in.
* A row that found the pipe full is owed and sent later; rows are cumulative, so nothing is lost
  meanwhile.
* Everything that is not about one run (live blocks, collections, the census) is told at most once a
  second.

A child that waits for its next job is asleep in a system call, and Celery has no hook there; so a
helper thread does what is left to do after a burst: owed rows, the last figures, the census. It
touches nothing while a run is active, sleeps in C without allocating, and is ended around ``fork``,
because a task that forks must find its process single-threaded as it is without the agent.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

from celery_memory_exporter.agent.guard import Guard, guarded
from celery_memory_exporter.agent.heap import census
from celery_memory_exporter.agent.heap.census import TypeCount
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.stats.tally import TaskKey
from celery_memory_exporter.agent.worker import evidence
from celery_memory_exporter.agent.worker.channel import PIPE_BUF, Channel
from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.evidence import WARM_RUNS

#: Between two tellings of the figures that are not about one run.
TELL_SECONDS = 1.0
#: How often, and after what pause, a child that ends tries to put its last words into a full pipe:
#: half a second in all, while the pool itself lets a child that ended wait for one.
LAST_WORDS_TRIES = 10
LAST_WORDS_PAUSE_SECONDS = 0.05
MAX_FORKING = 1_000
#: Start-up is over after ``WARM_RUNS``, or so long.
WARM_SECONDS = 60.0
#: What an object type takes in a record beside its name, at most: three numbers and their framing.
TYPE_OVERHEAD_BYTES = 40


def interpreter_figures(readings: Readings, objects: int | None) -> dict[str, Any]:
    """What only the process itself can know, by the names of ``ProcessReport``."""
    return {
        "python_blocks": sys.getallocatedblocks(),
        "native_live_bytes": readings.native_live(),
        "native_free_bytes": readings.native_free(),
        "gc_objects": objects,
        "gc_uncollectable": len(gc.garbage),
        "gc_collections": readings.collections(),
        "gc_enabled": int(gc.isenabled()),
    }


class ChildAgent:
    """One per prefork child, made in ``worker_process_init``."""

    def __init__(
        self,
        channel: Channel,
        settings: Settings,
        slot: int,
        memory_limit_bytes: int | None,
        counting: census.Census,
    ) -> None:
        self.guard = Guard()
        self._channel = channel
        self._place = channel.claim(slot)
        self._pid = os.getpid()
        self._started = time.monotonic()
        self._readings = Readings()
        self._memory_limit_bytes = memory_limit_bytes
        self._census = counting
        self._sent_types: dict[str, TypeCount] = {}
        self._owed: set[TaskKey] = set()
        #: Task types of which there is more to tell than their rows.
        self._untold: set[TaskKey] = set()
        self._sent_walks = 0
        self._told = 0.0
        self._news = True
        #: Held by whichever of the two threads tells; the other one leaves it to the next time and
        #: never waits.
        self._telling = threading.Lock()
        self._peak = self._readings.peak()
        self._helper: Helper | None = None
        #: The task that runs, and task types that fork.
        self._task = ""
        self._forking: set[str] = set()
        self.meter = Meter(
            self.guard,
            self._readings,
            max_tasks=settings.max_tasks,
            audits=settings.audits,
            pickles_failures=True,
            peak_limit_bytes=memory_limit_bytes,
            on_open=self._begin,
            on_close=self._end,
        )
        channel.send(("hello", self._pid, slot, procfs.start_ticks()))
        self._write_state(0.0, 0, "")
        self._take_census()
        self._tell()

    # --- around a run ----------------------------------------------------------------------------

    def _begin(self, name: str, rss: int | None) -> None:
        self._task = name
        if name in self._forking:
            self.stop_helper()
        self._write_state(time.time(), rss or 0, name)

    def _end(self, key: TaskKey) -> None:
        # The kernel's mark was restarted for this run: the lifetime's peak is kept here.
        self._peak = max(self._peak, self.meter.last_peak)
        self._task = ""
        self._write_state(0.0, 0, "")
        self._owed.add(key)
        self._untold.add(key)
        self._news = True
        if self._telling.acquire(blocking=False):
            try:
                self._pay()
                now = time.monotonic()
                if now - self._told >= TELL_SECONDS:
                    if self._census.due(now, idle=False):
                        self._take_census()
                    self._tell()
            finally:
                self._telling.release()
        if self._helper is None:
            self._helper = Helper(self)

    # --- what the helper does while the child waits ----------------------------------------------

    @guarded
    def rest(self) -> None:
        """Tells what the last runs left untold."""
        if not (self._news and self.meter.idle and self._telling.acquire(blocking=False)):
            return
        try:
            with self.meter.housekeeping():
                self._news = False  # before the work: a run that ends meanwhile is news again
                self._pay()
                if self._census.due(time.monotonic(), idle=True):
                    self._take_census()
                else:
                    self._news = True
                self._tell()
                self._news = self._news or bool(self._owed or self._untold)
        finally:
            self._telling.release()

    @guarded
    def end(self, exit_code: int) -> None:
        """The last words of a child that ends by itself: everything owed, and how it ends."""
        self.stop_helper()
        self._owed.update(self.meter.books.rows)
        self._untold.update(self.meter.books.rows)
        self._tell()
        for _ in range(LAST_WORDS_TRIES):
            self._pay()
            self._tell_growth()
            if (
                not self._owed
                and not self._untold
                and self._channel.send(("bye", self._pid, exit_code, self._peak))
            ):
                return
            time.sleep(LAST_WORDS_PAUSE_SECONDS)

    @guarded
    def before_fork(self) -> None:
        """A task forks. Its first such run is left out, in which the helper ends; the next ones
        begin without the helper."""
        if self._helper is not None:
            self.meter.disturb()
            self.stop_helper()
            if self._task and len(self._forking) < MAX_FORKING:
                self._forking.add(self._task)

    @guarded
    def after_fork(self) -> None:
        self.meter.after_fork()

    def stop_helper(self) -> None:
        """The next run starts another one."""
        if self._helper is not None:
            self._helper.stop()
            self._helper = None

    # --- parts -----------------------------------------------------------------------------------

    def _write_state(self, since: float, rss: int, task: str) -> None:
        if self._place is not None:
            self._channel.write(self._place, (self._pid, since, rss, self._peak), task)

    def _pay(self) -> None:
        """Sends what is owed. A row leaves the debts before it is read: a run that ends meanwhile
        puts it back."""
        for key in list(self._owed):
            self._owed.discard(key)
            if not self._channel.send(
                ("row", self._pid, *key, self.meter.books.rows[key].to_bytes())
            ):
                self._owed.add(key)
                return

    def _tell(self) -> None:
        self._told = time.monotonic()
        figures = interpreter_figures(self._readings, self._census.objects)
        figures["peak_rss_bytes"] = self._peak
        own = (self.meter.overhead_seconds, self.guard.errors, self.meter.books.tasks_folded)
        self._channel.send(("process", self._pid, figures, own))
        self._tell_growth()

    def _tell_growth(self) -> None:
        """What runs left behind, of the types that ran since; what the pipe does not take is told
        the next time."""
        deep = self.meter.deep
        rows = {row.path: row for row in deep.probe.containers()}
        if deep.probe.walks != self._sent_walks:
            told = [
                (evidence.cut(row.path), row.kind, row.items, row.growth, row.capacity)
                for row in rows.values()
            ]
            if self._channel.send(("containers", self._pid, told[: evidence.NAMES])):
                self._sent_walks = deep.probe.walks
        for key in list(self._untold):
            self._untold.discard(key)
            records = evidence.records(
                self._pid, key, self.meter.books.growth[key], deep.dossiers.get(key), rows
            )
            if not all(self._channel.send(record) for record in records):
                self._untold.add(key)
                return

    @guarded
    def _take_census(self) -> None:
        # The list of all objects must not show in the peak, of which the pool recycles children.
        self._peak = max(self._peak, self._readings.peak())
        below = self._memory_limit_bytes is None or self._peak <= self._memory_limit_bytes
        seconds = time.monotonic() - self._started
        self._census.take(
            warm=self.meter.runs >= WARM_RUNS or (self.meter.runs > 0 and seconds >= WARM_SECONDS)
        )
        if below:
            self._readings.reset_peak()
        for part in parts_of(census.changed(self._census.types(), self._sent_types)):
            if not self._channel.send(("types", self._pid, part)):
                return  # what was not sent differs from what was, and goes with the next census
            self._sent_types = census.known(self._sent_types, part)


def parts_of(
    types: dict[str, TypeCount], room: int = PIPE_BUF - 100
) -> Iterator[dict[str, TypeCount]]:
    """The rows in portions that each fit one record."""
    part: dict[str, TypeCount] = {}
    taken = 0
    for name, row in types.items():
        size = len(name.encode("utf-8", "replace")) + TYPE_OVERHEAD_BYTES
        if taken + size > room and part:
            yield part
            part, taken = {}, 0
        part[name] = row
        taken += size
    if part:
        yield part


class Helper:
    """A thread that lets the agent work while the child waits."""

    def __init__(self, agent: ChildAgent) -> None:
        self._agent = weakref.ref(agent)
        self._stop = threading.Lock()
        self._stop.acquire()
        self._thread = threading.Thread(target=self._run, name="celery-memory-agent", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # A lock's time-out sleeps without an allocation that a run's readings could see.
        while not self._stop.acquire(timeout=TELL_SECONDS):
            agent = self._agent()
            if agent is None:
                return
            agent.rest()
            del agent

    def stop(self) -> None:
        self._stop.release()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)
