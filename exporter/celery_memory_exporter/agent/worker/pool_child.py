"""The agent in a prefork child: measures its runs and adds them up where the main process reads.

* Each run is added to its type's row in the shared map, so a child that is killed loses only the
  run that it dies in. Types that have no row there are told through the pipe after each run.
* What found the pipe full is sent later (``outbox``).
* Everything that is not about one run (live blocks, collections, the census) is sent at most once a
  second.

A child that waits for its next job is asleep in a system call, and Celery has no hook there; so a
helper thread does what is left to do after a burst: what is pending, the last figures, the census.
It touches nothing while a run is active, sleeps in C without allocating, and is ended around
``fork``, because a task that forks must find its process single-threaded as it is without the
agent.
"""

from __future__ import annotations

import os
import threading
import time
import weakref

from celery_memory_exporter.agent.guard import Guard, guarded
from celery_memory_exporter.agent.heap.census import Census
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.agent.worker.figures import own_figures
from celery_memory_exporter.agent.worker.inheritance import Inheritance
from celery_memory_exporter.agent.worker.outbox import Outbox
from celery_memory_exporter.agent.worker.records import Hello
from celery_memory_exporter.agent.worker.shared_map import NAME_BYTES
from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.evidence import WARM_RUNS

#: Between two sendings of the figures that are not about one run.
SEND_SECONDS = 1.0
#: A new child counts its objects after so long, if it still waits for its first job.
FIRST_LOOK_SECONDS = 0.05
#: How often, and after what pause, a child that ends tries to put its last words into a full pipe:
#: half a second in all, while the pool itself lets a child that ended wait for one.
LAST_WORDS_TRIES = 10
LAST_WORDS_PAUSE_SECONDS = 0.05
MAX_FORKING = MAX_NAMES = 1_000
#: Start-up is over after ``WARM_RUNS``, or so long.
WARM_SECONDS = 60.0


class ChildAgent:
    """One per prefork child, made in ``worker_process_init``."""

    def __init__(self, inherited: Inheritance, slot: int, census: Census) -> None:
        self.guard = Guard()
        self._shared = inherited.channel.shared
        self._slot = slot
        self._place = self._shared.claim(slot)
        self._pid = os.getpid()
        #: Names of task types as a place holds them, and types that have no row in the shared map.
        self._names: dict[str, bytes] = {}
        self._apart: set[TaskKey] = set()
        self._outbox = Outbox(inherited.channel, self._pid)
        self._started = time.monotonic()
        self._readings = inherited.readings.forked()
        self._memory_limit_bytes = inherited.conditions.peak_limit_bytes
        self._census = census
        self._sent = 0.0
        #: Whether runs or the time have made something to send since the helper last looked.
        self._news = True
        #: Held by whichever of the two threads sends; the other one leaves it to the next time and
        #: never waits.
        self._sending = threading.Lock()
        self._peak = self._readings.peak()
        #: The task that runs, and task types that fork.
        self._task = ""
        self._forking: set[str] = set()
        self.meter = self._make_meter(inherited)
        self.meter.totals.new_row = self._new_row
        inherited.channel.send(Hello(self._pid, slot, procfs.start_ticks()))
        if self._place is not None:
            self._place.write(self._pid, 0.0, 0, self._peak, b"")
        self._send_figures()
        self._helper: Helper | None = Helper(self)

    def _make_meter(self, inherited: Inheritance) -> Meter:
        return Meter(
            self.guard,
            self._readings,
            inherited.conditions,
            biases=inherited.biases,
            account=self._shared.account(self._slot),
            on_open=self._begin,
            on_close=self._end,
        )

    # --- around a run ----------------------------------------------------------------------------

    def _begin(self, name: str, rss: int | None) -> None:
        self._task = name
        if name in self._forking:
            self.stop_helper()
        if self._place is not None:
            task = self._names.get(name) or self._encode(name)
            self._place.write(self._pid, time.time(), rss or 0, self._peak, task)

    def _encode(self, name: str) -> bytes:
        encoded = name.encode("utf-8", "replace")[:NAME_BYTES]
        if len(self._names) < MAX_NAMES:
            self._names[name] = encoded
        return encoded

    def _new_row(self, key: TaskKey) -> TaskTotals:
        row = self._shared.new_row(self._slot, self._pid, key)
        if row is None:
            self._apart.add(key)
            row = TaskTotals()
        return row

    def _end(self, key: TaskKey, totals: TaskTotals) -> None:
        # The kernel's mark was restarted for this run: the lifetime's peak is kept here.
        self._peak = max(self._peak, self.meter.high_water.last)
        self._task = ""
        if self._place is not None:
            self._place.rest()
        waiting = self._outbox.put(key, totals if key in self._apart else None)
        self._news = True
        now = time.monotonic()
        if waiting or now - self._sent >= SEND_SECONDS:
            self._send(now)
        if self._helper is None:
            self._helper = Helper(self)

    def _send(self, now: float) -> None:
        """What is due after a run."""
        if self._sending.acquire(blocking=False):
            try:
                self._outbox.send_totals()
                if now - self._sent >= SEND_SECONDS:
                    if self._census.due(now, idle=False):
                        self._take_census()
                    self._send_figures()
            finally:
                self._sending.release()

    # --- what the helper does while the child waits ----------------------------------------------

    @guarded
    def send_pending(self) -> None:
        """Sends what the last runs left unsent."""
        occupancy = self.meter.occupancy
        if not (self._news and occupancy.idle and self._sending.acquire(blocking=False)):
            return
        try:
            with occupancy.housekeeping():
                self._news = False  # before the work: a run that ends meanwhile is news again
                self._outbox.send_totals()
                if self._census.due(time.monotonic(), idle=True):
                    self._take_census()
                else:
                    self._news = True
                self._send_figures()
                self._news = self._news or not self._outbox.empty
        finally:
            self._sending.release()

    @guarded
    def end(self, exit_code: int) -> None:
        """The last words of a child that ends by itself: everything pending, and how it ends."""
        self.stop_helper()
        self.meter.busy.total(time.perf_counter())  # which its successor takes over
        for key, totals in list(self.meter.measurements().totals.items()):
            self._outbox.put(key, totals if key in self._apart else None)
        self._send_figures()
        for _ in range(LAST_WORDS_TRIES):
            self._outbox.send_totals()
            self._outbox.send_evidence(self.meter.measurements())
            if self._outbox.send_bye(exit_code, self._peak):
                return
            time.sleep(LAST_WORDS_PAUSE_SECONDS)

    @guarded
    def before_fork(self) -> None:
        """A task forks. Its first such run is left out, in which the helper ends; the next ones
        begin without the helper."""
        if self._helper is not None:
            self.meter.occupancy.disturb()
            self.stop_helper()
            if self._task and len(self._forking) < MAX_FORKING:
                self._forking.add(self._task)

    @guarded
    def after_fork(self) -> None:
        """In a process that a task forked: what it runs on is none of this child's."""
        self._place = None
        for row in self.meter.totals.rows.values():
            row.part()
        self.meter.after_fork()

    def stop_helper(self) -> None:
        """The next run starts another one."""
        if self._helper is not None:
            self._helper.stop()
            self._helper = None

    # --- parts -----------------------------------------------------------------------------------

    def _send_figures(self) -> None:
        """The process's own, and of the types that ran since: what is not for each run."""
        self._sent = time.monotonic()
        measured = self.meter.measurements()
        figures = own_figures(self._readings, objects=self._census.objects, peak_bytes=self._peak)
        self._outbox.send_figures(figures, measured)
        self._outbox.send_evidence(measured)

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
        self._outbox.send_types(self._census.types())


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
        pause = FIRST_LOOK_SECONDS
        while not self._stop.acquire(timeout=pause):
            pause = SEND_SECONDS
            agent = self._agent()
            if agent is None:
                return
            agent.send_pending()
            del agent

    def stop(self) -> None:
        self._stop.release()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=1.0)
