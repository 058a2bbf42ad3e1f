"""The readings before and after every task run, around ``task.__trace__``, the one call that each
pool makes.

``task_prerun`` and ``task_postrun`` are too late and too early: at ``task_postrun`` the return
value, the request and the exception are still referenced. Around ``__trace__`` the arguments are
alive at both ends and cancel out, and a successful run's return value can be dropped before the
closing reading, because the worker only uses its ``repr``.

What the figures rest on:

* memory figures come from runs that had their process to themselves; a run during which another one
  was active (thread, greenlet) is counted as a run and left out of the memory figures, and one
  during which the agent itself was at work is left out of what is retained;
* some runs are audited (``audit``), which is exact; the others are read as they are (tier 0): live
  memory after minus before, of successful runs; less memory than before counts only where the
  collector freed nothing, since that may be another run's garbage;
* the readings' own constant share (the objects that hold the opening readings, the answer itself)
  is measured with a task that does nothing and subtracted;
* readings without an audit, and audits, each have a share of the process's time; a process's first
  runs all get them.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded

from celery_memory_exporter.agent.audit.audit import Auditor
from celery_memory_exporter.agent.audit.deep import DeepAuditor
from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.interruptions import let_pass
from celery_memory_exporter.agent.meter import answers
from celery_memory_exporter.agent.meter.answers import ABORTED, SUCCEEDED
from celery_memory_exporter.agent.meter.books import (
    NO_BIASES,
    Biases,
    Costs,
    Measurements,
    Totals,
)
from celery_memory_exporter.agent.meter.conditions import Conditions, Containers, OnClose, OnOpen
from celery_memory_exporter.agent.meter.high_water import HighWater
from celery_memory_exporter.agent.meter.occupancy import Occupancy
from celery_memory_exporter.agent.meter.run import Run
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.profile import WARM_AGE
from celery_memory_exporter.agent.stats.readings import Readings

#: Of a process's busy time, for reading live memory at both ends of runs that are not audited, and
#: seconds once: a reading walks all pools of the heap (50 µs at a million objects) and takes their
#: place in the processor's caches.
SAMPLE_SHARE, SAMPLE_CREDIT_SECONDS = 0.003, 0.03
#: Between two readings of the process's CPU time.
BUSY_SECONDS = 0.05


class Meter:
    """Measures the runs of one process. ``on_open`` and ``on_close`` tell the owner which run
    begins and what it changed."""

    def __init__(
        self,
        guard: Guard,
        readings: Readings,
        conditions: Conditions,
        *,
        biases: Biases = NO_BIASES,
        on_open: OnOpen | None = None,
        on_close: OnClose | None = None,
    ) -> None:
        """``biases``: what a run of nothing reads as; ``calibrated_meter`` measures them."""
        self.guard = guard
        self.occupancy = Occupancy()
        self.totals = Totals(conditions.max_tasks, biases)
        self.auditor = Auditor(readings, enabled=conditions.audits)
        self.deep = DeepAuditor(readings)
        self.sampling = Budget(SAMPLE_SHARE, SAMPLE_CREDIT_SECONDS)
        self.busy_seconds = 0.0
        self.runs = 0
        self.high_water = HighWater(readings, conditions.peak_limit_bytes)
        #: Where runs overlap: hears of those that had the process to themselves.
        self.containers: Containers | None = None
        self._stash = answers.Stash()
        self._readings = readings
        self._pickles_failures = conditions.pickles_failures
        self._on_open = on_open
        self._on_close = on_close
        self._overhead_seconds = 0.0
        self._cpu_seconds = self._busy_due = 0.0

    def measurements(self) -> Measurements:
        """Everything that is to be sent of this process's runs. Reads the sizes of up to twenty
        containers, so it is not for each run."""
        probe = self.deep.probe
        return Measurements(
            totals=self.totals.rows,
            growth=self.totals.growth,
            dossiers=self.deep.dossiers,
            containers=probe.containers(),
            searches=probe.walks,
            costs=Costs(self._overhead_seconds, self.guard.errors, self.totals.tasks_folded),
        )

    # --- one run ---------------------------------------------------------------------------------

    def open(self, run: Run, name: str, request: Any) -> None:
        """Takes the opening readings; the run is not measured when the agent fails in here."""
        try:
            self._open(run, name, request)
            run.opened = True
        except Exception as error:
            self.leave(run)
            let_pass(error)
            self.guard.note("Meter.open")

    def _open(self, run: Run, name: str, request: Any) -> None:
        run.key, run.row, run.growth = self.totals.row_of(name, request)
        with self.occupancy.lock:
            self.occupancy.enter(run)
            run.age = run.growth.begin()
        self._choose(run)
        run.rss = self._readings.rss()
        run.peak_reset = run.alone and self.high_water.restart(run.rss or 0)
        if self._on_open is not None:
            self._on_open(name, run.rss)
        if run.deep:
            self.deep.begin(run.key)
        past_start = run.alone and run.age >= WARM_AGE
        run.sizes = self.containers.sizes() if self.containers is not None and past_start else None
        self._overhead_seconds += time.perf_counter() - run.begun
        if run.audited:
            run.cpu = time.process_time()
            self.auditor.begin(run.growth, confirm=run.confirms)
        elif run.sampled:
            run.native = self._readings.native_live()
            run.blocks = sys.getallocatedblocks()

    def settle(self, run: Run, answer: Any) -> Any:
        """The answer without what it need not hold over the closing readings; ``restore`` gives
        back what the worker needs.

        Raises nothing of its own, nor a soft time limit that arrives in here: the run is over, and
        its result is stored.
        """
        if not run.opened:
            return answer
        try:
            return self._settle(run, answer)
        except Exception as error:
            self.leave(run)
            self._note_late("Meter.settle", error)
            return answer

    def restore(self, run: Run, answer: Any) -> Any:
        return self._stash.take(answer) if run.stashed else answer

    def _settle(self, run: Run, answer: Any) -> Any:
        run.outcome = answers.outcome_of(answer)
        if run.audited:
            stashed = (
                self._stash.put(answer) if answer.info is None or self._pickles_failures else None
            )
            if stashed is not None:
                run.stashed = True
                return stashed
            self._abandon(run)
        return answer if answer.info is not None else answers.without_value(answer)

    def close(self, run: Run, answer: Any, *, aborted: bool = False) -> None:
        """Takes the closing readings and adds the run to its type's row.

        Raises nothing of its own, nor a soft time limit that arrives in here: the run is over, and
        its result is stored.
        """
        if not run.opened:
            return
        try:
            if aborted:
                run.outcome = ABORTED
                self._abandon(run)
            self._close(run, answer)
        except Exception as error:
            self._note_late("Meter.close", error)
        finally:
            self.leave(run)

    def _close(self, run: Run, answer: Any) -> None:
        begun = time.perf_counter()
        try:
            self._add(run, answer, begun)
            if self.containers is not None and run.alone and run.sizes is not None:
                self.containers.add_items(run.key[0], run.sizes)
            if run.alone and self.deep.has_suspects:
                self.deep.mark(run.key, run.growth, run.age)
                self.deep.search(self._busy(begun))
        finally:
            if self._on_close is not None:
                self._on_close(run.key, run.row)
            self._overhead_seconds += time.perf_counter() - begun

    def _add(self, run: Run, answer: Any, begun: float) -> None:
        finding, blocks, native = None, 0, None
        if run.audited:
            finding = self.auditor.finish(run.growth, answer)
            run.cpu = time.process_time() - run.cpu
        elif run.sampled:
            reading = time.thread_time()
            blocks, native = sys.getallocatedblocks(), self._readings.native_live()
            self.sampling.spend(2 * (time.thread_time() - reading))  # the opening ones take as long
        rss = self._readings.rss()
        self.occupancy.leave(run)
        # No other run begins as long as this one is added up: it might start a new high-water mark.
        with self.occupancy.lock:
            run.alone = self.occupancy.was_alone(run)
            undisturbed = run.alone and self.occupancy.was_undisturbed(run)
            run.row.add_run(run.outcome, begun - run.begun)
            if run.alone:
                self.totals.add_memory(run, rss, self.high_water.read(rss))
            if finding is not None and undisturbed:
                self.totals.add_finding(run, finding)
            elif run.sampled and undisturbed and run.outcome == SUCCEEDED:
                freed = self._readings.collected() != run.collected
                self.totals.add_sample(
                    run, blocks, native, freed=freed, only_large=self.auditor.enabled
                )
            self.runs += 1
            self.busy_seconds += begun - run.begun
        if run.deep:
            self.deep.end(run.key, run.growth, finding)

    def _abandon(self, run: Run) -> None:
        try:
            if run.deep:
                run.deep = False
                self.deep.abandon()
        finally:
            if run.audited:
                run.audited = False
                self.auditor.abandon()

    def leave(self, run: Run) -> None:
        """Whatever happened: the heap is as it was, and the run is no longer among those active."""
        try:
            self._abandon(run)
        except Exception as error:
            let_pass(error)
            self.guard.note("Meter.leave")
        finally:
            self.occupancy.leave(run)

    def after_fork(self) -> None:
        """In a process that a task forked: its heap is collected again, and nothing is traced."""
        try:
            self.deep.abandon()
        finally:
            self.auditor.abandon()

    # --- parts -----------------------------------------------------------------------------------

    def _note_late(self, place: str, error: Exception) -> None:
        """Of a run that is over. Its soft time limit has come too late; Celery would lose the
        result."""
        if not isinstance(error, SoftTimeLimitExceeded):
            let_pass(error)
        self.guard.note(place)

    def _choose(self, run: Run) -> None:
        """How the run's live memory is measured: by an audit, by readings alone, or not at all."""
        run.sampled = False
        if not run.alone or self.occupancy.working:
            return
        busy = self._busy(run.begun)
        run.audited = self.auditor.due(run.growth, run.age, len(self.totals.growth), busy)
        if run.audited:
            run.deep = self.deep.wants(run.key, run.growth, busy)
            suspected = self.deep.suspects(run.key)
            run.confirms = not run.deep and self.auditor.confirms(run.growth, busy, suspected)
        elif not run.growth.replaces:
            run.sampled = self.sampling.left(self.busy_seconds) > 0
            run.collected = self._readings.collected() if run.sampled else 0

    def _busy(self, now: float) -> float:
        """Seconds that the process has been at work. Its CPU time is asked for now and then only:
        that is a call into the kernel."""
        if now >= self._busy_due:
            self._busy_due = now + BUSY_SECONDS
            self._cpu_seconds = time.process_time()
        return max(self.busy_seconds, self._cpu_seconds)
