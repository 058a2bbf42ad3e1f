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
from celery_memory_exporter.agent.audit.finding import Finding
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
from celery_memory_exporter.agent.meter.busy_time import LOOK_SECONDS, BusyTime
from celery_memory_exporter.agent.meter.conditions import Conditions, Containers, OnClose, OnOpen
from celery_memory_exporter.agent.meter.high_water import HighWater
from celery_memory_exporter.agent.meter.occupancy import Occupancy
from celery_memory_exporter.agent.meter.run import Run
from celery_memory_exporter.agent.meter.sampling import Sample, Sampler
from celery_memory_exporter.agent.stats.budget import Account, new_account
from celery_memory_exporter.agent.stats.profile import WARM_AGE
from celery_memory_exporter.agent.stats.readings import Readings


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
        account: Account | None = None,
        on_open: OnOpen | None = None,
        on_close: OnClose | None = None,
    ) -> None:
        """``biases``: what a run of nothing reads as; ``measure_biases`` tells."""
        account = new_account() if account is None else account
        self.guard = guard
        self.occupancy = Occupancy()
        self.totals = Totals(conditions.max_tasks, biases)
        own = biases.failed.size, biases.audit.size
        self.auditor = Auditor(readings, account, enabled=conditions.audits, own=own)
        self.deep = DeepAuditor(readings, account)
        self.sampler = Sampler(readings, account)
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
        self.busy = BusyTime(account)

    def measurements(self) -> Measurements:
        """Everything that is to be sent of this process's runs. Reads the sizes of up to twenty
        containers, so it is not for each run."""
        return Measurements(
            totals=self.totals.rows,
            growth=self.totals.growth,
            dossiers=self.deep.dossiers,
            containers=self.deep.probe.containers(),
            costs=Costs(
                self._overhead_seconds,
                self.guard.errors,
                self.totals.tasks_folded,
                dict(self.auditor.discarded),
            ),
        )

    # --- one run ---------------------------------------------------------------------------------

    def open(self, run: Run, name: str, request: Any) -> None:
        """Takes the opening readings; the run is not measured when the agent fails in here."""
        try:
            run.key, run.row, run.growth = self.totals.row_of(name, request)
            with self.occupancy.lock:
                self.occupancy.enter(run)
                run.age = run.growth.begin()
            growth = run.growth
            if run.alone and (growth.runs >= growth.plain_runs or run.begun >= growth.plain_until):
                self._choose(run)
            run.rss = self._readings.rss()
            run.peak_reset = run.alone and self.high_water.restart(run.rss or 0)
            if self._on_open is not None:
                self._on_open(name, run.rss)
            if run.deep:
                self.deep.begin(run.key)
            if self.containers is not None:
                past_start = run.alone and run.age >= WARM_AGE
                run.sizes = self.containers.sizes() if past_start else None
            self._overhead_seconds += time.perf_counter() - run.begun
            if run.audited:
                run.cpu = time.process_time()
                self.auditor.begin(run.growth, confirm=run.confirms)
            elif run.sampled:
                self.sampler.begin(run)
            run.opened = True
        except Exception as error:
            self.leave(run)
            let_pass(error)
            self.guard.note("Meter.open")

    def settle(self, run: Run, answer: Any) -> Any:
        """The answer without what it need not hold over the closing readings; ``restore`` gives
        back what the worker needs.

        Raises nothing of its own, nor a soft time limit that arrives in here: the run is over, and
        its result is stored.
        """
        if not run.opened:
            return answer
        try:
            run.outcome = answers.outcome_of(answer)
            if run.audited and (answer.info is None or self._pickles_failures):
                stashed = self._stash.put(answer)
                if stashed is not None:
                    run.stashed = True
                    return stashed
            if run.audited:
                self._abandon(run)
            return answers.without_value(answer)
        except Exception as error:
            self.leave(run)
            self._note_late("Meter.settle", error)
            return answer

    def restore(self, answer: Any) -> Any:
        """The answer that was stashed, as far as the pool needs it."""
        return self._stash.take(answer)

    def close(self, run: Run, answer: Any, *, aborted: bool = False) -> None:
        """Takes the closing readings and adds the run to its type's row.

        Raises nothing of its own, nor a soft time limit that arrives in here: the run is over, and
        its result is stored.
        """
        if not run.opened:
            return
        begun = time.perf_counter()
        try:
            try:
                if aborted:
                    run.outcome = ABORTED
                    self._abandon(run)
                live = self._read_live(run, answer) if run.audited or run.sampled else None
                rss = self._readings.rss()
                # No other run begins as long as this one is added up: it might start a new
                # high-water mark.
                with self.occupancy.lock:
                    self.occupancy.leave(run)
                    self._add(run, live, rss, begun - run.begun)
                if run.deep or (run.alone and self.deep.has_suspects):
                    self._search(run, live, begun)
                if self.containers is not None and run.alone and run.sizes is not None:
                    self.containers.add_items(run.key[0], run.sizes)
            finally:
                if self._on_close is not None:
                    self._on_close(run.key, run.row)
                self._overhead_seconds += time.perf_counter() - begun
        except Exception as error:
            self._note_late("Meter.close", error)
        finally:
            if run.active or run.audited:
                self.leave(run)

    def _add(
        self, run: Run, live: Finding | Sample | None, rss: int | None, seconds: float
    ) -> None:
        self.runs += 1
        self.busy.seconds += seconds
        run.row.add_run(run.outcome, seconds)
        if run.alone:
            peak = self.high_water.read(rss)
            if rss is not None and run.rss is not None:
                run.row.add_memory(run.rss, rss, peak if run.peak_reset else None)
            if live is not None and self.occupancy.was_undisturbed(run):
                self._add_live(run, live)

    def _read_live(self, run: Run, answer: Any) -> Finding | Sample | None:
        """The closing readings of live memory."""
        if run.audited:
            finding = self.auditor.finish(run.growth, answer)
            run.cpu = time.process_time() - run.cpu
            return finding
        return self.sampler.finish(run)

    def _add_live(self, run: Run, live: Finding | Sample) -> None:
        if isinstance(live, Finding):
            self.totals.add_finding(run, live)
        elif run.outcome == SUCCEEDED:
            blocks, native, freed = live
            only_large = self.auditor.enabled
            self.totals.add_sample(run, blocks, native, freed=freed, only_large=only_large)

    def _search(self, run: Run, live: Finding | Sample | None, begun: float) -> None:
        """What can be known of who holds what suspects leave behind."""
        if run.deep:
            self.deep.end(run.key, run.growth, live if isinstance(live, Finding) else None)
        if run.alone:
            self.deep.mark(run.key, run.growth, run.age)
            self.deep.search(self.busy.total(begun))

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
            with self.occupancy.lock:
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
        """How the run's live memory is measured: by an audit, by readings alone, or, where no time
        is left, not at all."""
        if self.occupancy.working:
            return
        growth, busy = run.growth, self.busy.total(run.begun)
        run.audited = self.auditor.due(growth, run.age, len(self.totals.growth), busy)
        if run.audited:
            run.deep = self.deep.wants(run.key, growth, busy)
            suspected = self.deep.suspects(run.key)
            run.confirms = not run.deep and self.auditor.confirms(growth, busy, suspected)
            return
        wait = LOOK_SECONDS if growth.replaces else self.sampler.budget.wait(busy)
        run.sampled = not wait
        if wait:
            growth.plain_until = run.begun + min(wait, LOOK_SECONDS)
            due = growth.runs >= growth.next_audit
            growth.plain_runs = sys.maxsize if due else growth.next_audit
