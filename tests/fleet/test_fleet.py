"""What the fleet believes, by values."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.fleet.facts import WorkerFacts
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from tests import samples
from tests.fleet.believed import make_fleet, only, rss, run_by_events, succeeded

# --- reports ------------------------------------------------------------------------------------


def test_a_report_shows_the_worker() -> None:
    fleet = make_fleet()
    assert fleet.apply_report(samples.report(), 10.0) is None
    worker = only(fleet, 11.0)
    assert (worker.nodename, worker.up, worker.live) == ("celery@web1", True, True)
    assert set(rss(worker)) == {"main", "0", "1"}


def test_a_repeated_report_is_a_counted_duplicate() -> None:
    fleet = make_fleet()
    fleet.apply_report(samples.report(), 10.0)
    assert fleet.apply_report(samples.report(), 11.0) == "duplicate"
    snapshot = fleet.snapshot(11.0)
    assert snapshot.reports_received == 2
    assert snapshot.reports_rejected["duplicate"] == 1


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=6))
def test_reports_lost_repeated_and_reordered_end_in_the_latest(
    order: list[int], repeated: list[int]
) -> None:
    fleet = make_fleet()
    reports = [samples.report(sequence=number, children_started=number) for number in range(6)]
    for number in [*order, *repeated]:
        fleet.apply_report(reports[number], 0.0)
    assert only(fleet).children_started == 5


def test_a_restarted_worker_replaces_its_predecessor_whatever_the_sequence() -> None:
    fleet = make_fleet()
    fleet.apply_report(samples.report(sequence=900), 0.0)
    again = samples.report(
        sequence=1, instance=samples.instance(200, started_at=2_000.0), children_started=1
    )
    assert fleet.apply_report(again, 1.0) is None
    assert fleet.apply_report(samples.report(sequence=901), 2.0) == "stale"
    assert only(fleet).children_started == 1


def test_an_old_report_is_no_present_state_but_its_counters_stay_until_it_expires() -> None:
    fleet = make_fleet()
    fleet.apply_report(samples.report(), 0.0)
    assert only(fleet, 46.0).live
    late = only(fleet, 47.0)
    assert (late.up, late.live, late.processes) == (False, False, ())
    assert late.report is not None
    assert late.report.tasks
    assert fleet.snapshot(601.0).workers == ()


def test_workers_beyond_the_limit_are_refused_and_counted() -> None:
    fleet = make_fleet(workers=1)
    fleet.apply_report(samples.report(), 0.0)
    assert fleet.apply_report(samples.report(worker="celery@web2"), 0.0) == "capacity"
    snapshot = fleet.snapshot(0.0)
    assert snapshot.reports_rejected["capacity"] == 1
    assert snapshot.dropped["celery_worker_info"] == 1


# --- worker events ------------------------------------------------------------------------------


def test_a_worker_that_says_goodbye_is_down_at_once() -> None:
    fleet = make_fleet()
    fleet.apply_report(samples.report(), 0.0)
    fleet.apply_worker_event("celery@web1", "worker-offline", None, 1.0)
    assert (only(fleet, 1.0).up, only(fleet, 1.0).processes) == (False, ())


# --- the process table --------------------------------------------------------------------------


def test_without_agent_and_events_the_table_shows_the_worker() -> None:
    fleet = make_fleet()
    fleet.apply_processes([samples.table()], 0.0)
    worker = only(fleet)
    assert worker.up
    assert rss(worker) == {"main": 55 * samples.MIB, "0": 55 * samples.MIB, "1": 55 * samples.MIB}
    assert worker.children_started == 2


def test_agent_and_table_of_one_worker_become_one_with_the_agents_slots_and_the_tables_memory() -> (
    None
):
    fleet = make_fleet()
    fleet.apply_report(
        samples.report(processes=[samples.process("main", 100), samples.process("7", 101)]), 0.0
    )
    fleet.apply_processes([samples.table("celery@name-on-the-command-line", children=(101,))], 1.0)
    worker = only(fleet, 1.0)
    child = next(each.figures for each in worker.processes if each.figures.process == "7")
    assert worker.nodename == "celery@web1"
    assert child.rss_bytes == 55 * samples.MIB
    assert child.python_blocks == 300_000
    assert child.peak_rss_bytes == 60 * samples.MIB, (
        "the agent restarts the kernel's mark and keeps the peak itself"
    )


def test_the_order_in_which_agent_and_table_are_heard_does_not_matter() -> None:
    views = []
    for first in (True, False):
        fleet = make_fleet()
        if first:
            fleet.apply_report(samples.report(), 0.0)
        fleet.apply_processes([samples.table("celery@other-name")], 0.0)
        fleet.apply_report(samples.report(), 0.0)
        fleet.apply_processes([samples.table("celery@other-name")], 1.0)
        views.append(
            rss(next(w for w in fleet.snapshot(1.0).workers if w.nodename == "celery@web1"))
        )
    assert views[0] == views[1]


def test_a_table_that_is_no_longer_read_gives_way_to_the_agent() -> None:
    fleet = make_fleet()
    fleet.apply_processes([samples.table()], 0.0)
    fleet.apply_report(samples.report(), 40.0)
    assert rss(only(fleet, 41.0))["1"] == 70 * samples.MIB


# --- task events --------------------------------------------------------------------------------


def test_a_worker_without_an_agent_is_counted_by_its_events() -> None:
    fleet = make_fleet()
    run_by_events(fleet)
    assert succeeded(only(fleet)) == 1


def test_a_worker_with_an_agent_is_not_counted_by_its_events_as_well() -> None:
    fleet = make_fleet()
    run_by_events(fleet, "celery@web1")
    fleet.apply_report(samples.report(traffic=[samples.traffic(succeeded=7)]), 1.0)
    run_by_events(fleet, "celery@web1", now=2.0)
    worker = only(fleet, 2.0)
    assert (succeeded(worker), worker.events_lost) == (7, None)


def test_a_worker_that_goes_on_without_its_agent_is_counted_by_its_events_again() -> None:
    fleet = make_fleet()
    fleet.apply_report(samples.report(traffic=[samples.traffic(succeeded=7)]), 0.0)
    for second in range(100, 700, 100):
        run_by_events(fleet, "celery@web1", uuid=str(second), now=float(second))
    worker = only(fleet, 701.0)
    assert worker.report is None
    assert succeeded(worker) == 6


def test_lost_events_are_told_by_the_workers_own_count() -> None:
    fleet = make_fleet()
    fleet.apply_worker_event("celery@bare", "worker-online", 0, 0.0, processed=0)
    assert only(fleet).events_lost is None
    for uuid, processed in enumerate((1, 6, 7, 8, 9)):
        run_by_events(fleet, uuid=str(uuid))
        fleet.apply_worker_event("celery@bare", "worker-heartbeat", 0, 2.0, processed=processed)
    assert only(fleet, 4.0).events_lost == 4


def test_nothing_is_lost_while_the_agent_counts() -> None:
    fleet = make_fleet()
    run_by_events(fleet, "celery@web1")
    fleet.apply_worker_event("celery@web1", "worker-heartbeat", 0, 0.0, processed=1)
    fleet.apply_report(samples.report(), 1.0)
    for second in range(2, 40, 2):
        fleet.apply_worker_event(
            "celery@web1", "worker-heartbeat", 0, float(second), processed=second * 100
        )
        run_by_events(fleet, "celery@web1", uuid=str(second), now=float(second))
    for second in range(700, 900, 2):
        run_by_events(fleet, "celery@web1", uuid=str(second), now=float(second))
        fleet.apply_worker_event(
            "celery@web1", "worker-heartbeat", 0, float(second), processed=10_000 + second // 2
        )
    assert only(fleet, 900.0).report is None
    assert only(fleet, 900.0).events_lost == 0


def test_the_last_report_comes_after_the_goodbye() -> None:
    fleet = make_fleet()
    fleet.apply_report(samples.report(), 0.0)
    fleet.apply_worker_event("celery@web1", "worker-offline", None, 1.0)
    fleet.apply_report(
        samples.report(sequence=4, final=1, traffic=[samples.traffic(succeeded=9)]), 2.0
    )
    worker = only(fleet, 2.0)
    assert (worker.up, worker.live, succeeded(worker)) == (False, False, 9)


def test_what_clients_send_is_remembered_only_where_somebody_tells_its_end() -> None:
    fleet = make_fleet()
    fleet.apply_task_event("task-sent", samples.task_event("task-sent"), 0.0)
    assert fleet.sent_at("one") == 999.75
    fleet = make_fleet()
    fleet.apply_report(samples.report(), 0.0)
    fleet.apply_task_event("task-sent", samples.task_event("task-sent"), 0.0)
    assert fleet.sent_at("one") is None


# --- queues -------------------------------------------------------------------------------------


def test_queues_are_those_configured_consumed_and_sent_to() -> None:
    fleet = Fleet(Rules(samples.BOOT, Limits()), {"": ("configured",)})
    fleet.apply_report(samples.report(queues=["consumed"]), 0.0)
    fleet.apply_inspection(
        "", {"celery@bare": WorkerFacts("prefork", 4, 4, ("consumed", "asked"))}, 0.0
    )
    fleet.apply_task_event("task-sent", samples.task_event("task-sent"), 0.0)
    assert set(fleet.queue_names("", 0.0)) == {"configured", "consumed", "asked", "slow"}


def test_workers_and_processes_of_a_queue_are_those_that_are_up() -> None:
    fleet = make_fleet()
    fleet.apply_report(samples.report(queues=["q"], concurrency=2), 0.0)
    fleet.apply_inspection("", {"celery@bare": WorkerFacts("prefork", 4, 4, ("q",))}, 0.0)
    fleet.apply_worker_event("celery@bare", "worker-heartbeat", 0, 0.0)
    (queue,) = fleet.snapshot(0.0).queues
    assert (queue.workers, queue.processes) == (2, 6)
    fleet.apply_worker_event("celery@bare", "worker-offline", None, 1.0)
    (queue,) = fleet.snapshot(1.0).queues
    assert (queue.workers, queue.processes) == (1, 2)


def test_queues_beyond_the_limit_are_left_out_and_counted() -> None:
    fleet = make_fleet(queues=1)
    fleet.apply_report(samples.report(queues=["a"]), 0.0)
    fleet.apply_task_event("task-sent", samples.task_event("task-sent"), 0.0)
    assert fleet.queue_names("", 0.0) == ["a"]
    assert fleet.snapshot(0.0).dropped["celery_queue_length"] == 1


def test_only_living_workers_without_an_agent_are_asked() -> None:
    fleet = make_fleet()
    fleet.apply_report(samples.report(), 0.0)
    fleet.apply_worker_event("celery@web1", "worker-heartbeat", 0, 0.0)
    fleet.apply_worker_event("celery@bare", "worker-heartbeat", 0, 0.0)
    assert fleet.without_agent("", 0.0) == {"celery@bare"}
    assert fleet.without_agent("", 301.0) == set()


# --- several brokers ----------------------------------------------------------------------------


def test_one_name_at_two_brokers_is_two_workers() -> None:
    fleet = Fleet(Rules(samples.BOOT, Limits()), {"eu": (), "us": ("q",)})
    run_by_events(fleet, broker="eu")
    run_by_events(fleet, broker="us", uuid="1")
    run_by_events(fleet, broker="us", uuid="2")
    snapshot = fleet.snapshot(0.0)
    assert {worker.broker: succeeded(worker) for worker in snapshot.workers} == {"eu": 1, "us": 2}
    assert snapshot.several_brokers
    assert (fleet.queue_names("eu", 0.0), fleet.queue_names("us", 0.0)) == ([], ["q"])


def test_a_process_belongs_to_the_broker_at_which_its_worker_was_heard() -> None:
    fleet = Fleet(Rules(samples.BOOT, Limits()), {"eu": (), "us": ()})
    fleet.apply_worker_event("celery@bare", "worker-heartbeat", 0, 0.0, broker="us")
    fleet.apply_report(samples.report(), 0.0, "eu")
    fleet.apply_processes(
        [
            samples.table(),
            samples.table("celery@bare", 300, ()),
            samples.table("celery@new", 400, ()),
        ],
        0.0,
    )
    live = {
        worker.nodename: worker.broker for worker in fleet.snapshot(0.0).workers if worker.processes
    }
    assert live == {"celery@web1": "eu", "celery@bare": "us", "celery@new": ""}


def test_the_only_broker_has_all_workers_whatever_its_name() -> None:
    fleet = Fleet(Rules(samples.BOOT, Limits()), {"eu": ()})
    fleet.apply_processes([samples.table("celery@bare", 300, ())], 0.0)
    run_by_events(fleet, broker="eu")
    assert only(fleet).broker == "eu"
