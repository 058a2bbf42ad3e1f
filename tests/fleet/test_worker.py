"""One worker: its slots, its figures from two sources, and whether it lives."""

from __future__ import annotations

import dataclasses

import pytest

from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import Running, WorkerReport
from celery_memory_exporter.common.traffic import Counts
from celery_memory_exporter.fleet.facts import SharedMemory, WorkerFacts
from celery_memory_exporter.fleet.snapshot import WorkerView
from celery_memory_exporter.fleet.worker import WorkerState
from celery_memory_exporter.fleet.worker_tasks import WorkerTasks
from tests import samples
from tests.fleet.believed import rss, slots

TIMEOUT = 300.0


def a_worker(report: WorkerReport | None = None) -> WorkerState:
    """Heard of at 0."""
    return WorkerState(
        "celery@web1", "", 0.0, WorkerTasks(Counts(max_tasks=200)), report=report, reported=0.0
    )


def view(worker: WorkerState, now: float = 0.0, **options: object) -> WorkerView:
    in_table = worker.table is not None
    return worker.view(now, **({"in_table": in_table, "timeout": TIMEOUT, "shared": {}} | options))


# --- slots --------------------------------------------------------------------------------------


def test_a_recycled_child_takes_the_slot_that_is_free() -> None:
    worker = a_worker()
    worker.take_table(samples.table(children=(101, 102, 103)))
    worker.take_table(samples.table(children=(101, 103, 110)))
    assert slots(view(worker)) == {100: "main", 101: "0", 103: "2", 110: "1"}
    assert view(worker).children_started == 4


def test_no_slot_is_shown_twice_when_the_guess_was_wrong() -> None:
    """Two children are replaced between two looks, in the other order than their pids tell."""
    worker = a_worker()
    worker.take_table(samples.table(children=(10, 11)))
    worker.take_table(samples.table(children=(20, 30)))
    told = [samples.process("main", 100), samples.process("1", 20)]
    worker.report = samples.report(processes=told)
    worker.take_table(samples.table(children=(20, 30)))
    assert slots(view(worker)) == {100: "main", 20: "1", 30: "0"}


# --- two sources --------------------------------------------------------------------------------


def test_the_system_tells_memory_and_the_agent_slots_and_what_only_it_can_see() -> None:
    worker = a_worker(
        samples.report(processes=[samples.process("main", 100), samples.process("7", 101)])
    )
    worker.take_table(samples.table(children=(101,)))
    (child,) = [each.figures for each in view(worker).processes if each.figures.process == "7"]
    assert (child.rss_bytes, child.python_blocks) == (55 * samples.MIB, 300_000)


def test_the_highest_peak_is_the_agents_since_it_restarts_the_kernels_mark() -> None:
    worker = a_worker(samples.report())
    worker.take_table(samples.table())
    peaks = {each.figures.peak_rss_bytes for each in view(worker).processes}
    assert peaks == {60 * samples.MIB}


@pytest.mark.parametrize(("seen", "shown"), [(18, 18), (None, 20)])
def test_what_may_not_be_looked_at_from_outside_is_the_agents(seen: int | None, shown: int) -> None:
    worker = a_worker(samples.report())
    table = samples.table()
    worker.take_table(
        dataclasses.replace(table, main=dataclasses.replace(table.main, open_fds=seen))
    )
    assert view(worker).processes[0].figures.open_fds == shown


def test_a_child_that_the_table_no_longer_sees_is_gone_before_the_next_report() -> None:
    worker = a_worker(samples.report())
    worker.take_table(samples.table(children=(101,)))
    assert set(rss(view(worker))) == {"main", "0"}


def test_a_table_that_does_not_hold_gives_way_to_the_agent() -> None:
    worker = a_worker(samples.report())
    worker.take_table(samples.table())
    assert rss(view(worker, in_table=False))["1"] == 70 * samples.MIB


def test_the_cgroup_is_the_agents_where_it_tells() -> None:
    worker = a_worker()
    worker.take_table(samples.table())
    assert view(worker).cgroup.limit_bytes == 1024 * samples.MIB
    worker.report = samples.report()
    assert view(worker).cgroup.limit_bytes == 512 * samples.MIB
    worker.report = samples.report(cgroup=CgroupMemory())
    assert view(worker).cgroup.limit_bytes == 1024 * samples.MIB


def test_shared_memory_is_the_process_it_was_read_of() -> None:
    worker = a_worker()
    worker.take_table(samples.table())
    memory = SharedMemory(30, 20)
    processes = view(worker, shared={samples.seen(101).identity: memory}).processes
    assert {each.figures.pid: each.shared for each in processes} == {
        100: None,
        101: memory,
        102: None,
    }


# --- life ---------------------------------------------------------------------------------------


def test_a_report_is_no_present_state_after_three_intervals() -> None:
    worker = a_worker(samples.report())
    assert view(worker, 46.0).live
    late = view(worker, 47.0)
    assert (late.up, late.live, late.processes, late.running) == (False, False, (), ())
    assert late.cgroup == CgroupMemory(oom_kills=1), "what was counted stays"


def test_a_heartbeat_shows_a_worker_until_it_times_out() -> None:
    worker = a_worker()
    worker.beat(3, 0.0, offline=False)
    assert (view(worker, 300.0).up, view(worker, 300.0).active_tasks) == (True, 3)
    assert (view(worker, 301.0).up, view(worker, 301.0).active_tasks) == (False, None)


def test_a_heartbeat_that_somebody_asked_for_has_no_figures_and_changes_none() -> None:
    worker = a_worker()
    worker.beat(3, 0.0, offline=False)
    worker.beat(None, 1.0, offline=False)
    assert view(worker, 1.0).active_tasks == 3


def test_a_goodbye_ends_it_whatever_the_report_says() -> None:
    worker = a_worker(samples.report())
    worker.beat(None, 1.0, offline=True)
    assert (view(worker, 1.0).up, view(worker, 1.0).processes) == (False, ())


def test_without_its_report_it_is_what_events_and_table_tell_and_stays_itself() -> None:
    worker = a_worker(samples.report(running=[Running("t", 1, 1.0)]))
    worker.take_table(samples.table())
    without = worker.without_report()
    assert (view(without).report, view(without).running, view(without).up) == (None, (), True)
    assert view(worker).report is not None


# --- what it consumes and counts ----------------------------------------------------------------


def test_queues_are_the_agents_where_there_is_one_and_else_what_was_answered() -> None:
    worker = a_worker()
    assert (worker.consumed(), worker.sole_queue()) == ((), None)
    worker.learn(WorkerFacts("prefork", 4, 4, ("mine", "yours")), "celery")
    assert (worker.consumed(), worker.sole_queue()) == (("mine", "yours"), None)
    worker.report = samples.report(queues=["told"])
    assert (worker.consumed(), worker.sole_queue()) == (("told",), "told")


@pytest.mark.parametrize(("pool", "processes"), [("prefork", 2), ("threads", 0)])
def test_only_prefork_has_processes_that_run_tasks(pool: str, processes: int) -> None:
    assert a_worker(samples.report(pool=pool)).pool_processes() == processes


def test_a_worker_that_only_the_table_shows_has_counted_nothing() -> None:
    worker = a_worker()
    worker.take_table(samples.table())
    assert worker.totals() is None


def test_of_its_cgroup_it_has_counted_the_oom_kills_alone() -> None:
    totals = a_worker(samples.report()).totals()
    assert totals is not None
    assert totals.cgroup == CgroupMemory(oom_kills=1)


def test_what_was_counted_before_its_only_queue_was_known_is_that_queues() -> None:
    worker = a_worker()
    worker.tasks.hear("task-received")
    worker.tasks.counts.count("task-received", "t", "celery", {})
    worker.learn(WorkerFacts("prefork", 4, 4, ("mine",)), "celery")
    totals = worker.totals()
    assert totals is not None
    assert totals.traffic is not None
    assert [row.queue for row in totals.traffic.rows] == ["mine"]


def test_a_worker_is_only_seen_until_something_else_has_told_of_it() -> None:
    worker = a_worker()
    worker.take_table(samples.table())
    assert not worker.only_seen()
    worker.table = None
    assert worker.only_seen()
    worker.beat(0, 1.0, offline=False)
    assert not worker.only_seen()
