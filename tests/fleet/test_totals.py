"""What workers have counted: added up, and taken off."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.report import Bounds, Histogram, LostRuns, Traffic
from celery_memory_exporter.fleet.totals import AgentTotals, Totals, TrafficView
from tests import samples

OTHER_BOUNDS = Bounds([0.5], [0.5], delta_bytes=[0.0], peak_bytes=[0.0])


def traffic_of(*rows: Traffic, runtime: tuple[float, ...] = (0.1, 1.0)) -> TrafficView:
    return TrafficView(runtime, (0.5, 5.0), rows)


def of(count: int, **report: Any) -> Totals:
    """Of a worker that has counted so much of everything."""
    base: dict[str, Any] = {
        "tasks": [samples.task(runs={"succeeded": count}, seconds={"succeeded": 0.5 * count})],
        "lost": [LostRuns("shop.big", "oom", count)],
        "children_exited": {"oom": count},
        "errors": count,
        "audits_discarded": {"frozen": count},
    }
    return Totals(
        children_started=count,
        agent=AgentTotals.of(samples.report(**(base | report))),
        traffic=traffic_of(samples.traffic(succeeded=count)),
    )


def test_what_an_agent_counts_is_kept_and_what_it_measures_is_not() -> None:
    report = samples.report()
    totals = AgentTotals.of(report)
    assert (totals.lost, totals.errors, totals.overhead_seconds) == (
        report.lost,
        report.errors,
        report.overhead_seconds,
    )
    task = totals.tasks[0]
    assert (task.runs, task.audited_runs) == (report.tasks[0].runs, report.tasks[0].audited_runs)
    assert (task.retained_blocks, task.retained_bytes, task.retained_runs, task.evidence) == (
        0.0,
        0.0,
        0,
        None,
    )


def test_counters_add_up() -> None:
    both = of(3) + of(4)
    assert both.agent is not None
    assert both.traffic is not None
    assert both.children_started == both.agent.errors == 7
    assert both.agent.tasks[0].runs == {"succeeded": 7}
    assert both.agent.lost == [LostRuns("shop.big", "oom", 7)]
    assert both.agent.children_exited == {"oom": 7}
    assert both.agent.audits_discarded == {"frozen": 7}
    assert both.traffic.rows[0].succeeded == 7


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_what_is_added_can_be_taken_off(one: int, other: int) -> None:
    nothing_else = of(0)
    assert of(one) + of(other) - of(other) == of(one) + nothing_else - nothing_else


def test_less_than_nothing_is_below_zero() -> None:
    owed = Totals() - of(3)
    assert owed.agent is not None
    assert owed.traffic is not None
    assert owed.children_started == owed.agent.errors == owed.traffic.rows[0].succeeded == -3
    assert owed.traffic.runtime_seconds == (0.1, 1.0)
    assert owed.agent.bounds == samples.BOUNDS


def test_nothing_adds_nothing() -> None:
    assert Totals() + of(3) == of(3) + Totals() == of(3)


def test_tasks_on_other_queues_stay_apart() -> None:
    rows = samples.traffic(queue="a"), samples.traffic(queue="b")
    both = Totals(traffic=traffic_of(rows[0])) + Totals(traffic=traffic_of(rows[1]))
    assert both.traffic == traffic_of(*rows)


def test_messages_are_counted_on_without_their_times_when_buckets_change() -> None:
    new = samples.traffic(runtime=Histogram([1, 1], 2.0))
    both = Totals(traffic=traffic_of(samples.traffic())) + Totals(
        traffic=traffic_of(new, runtime=(0.5,))
    )
    assert both.traffic is not None
    assert both.traffic.runtime_seconds == (0.5,)
    (row,) = both.traffic.rows
    assert (row.succeeded, row.runtime) == (2 * new.succeeded, new.runtime)


def test_memory_by_task_type_is_the_newer_ones_when_buckets_change() -> None:
    new = samples.task(
        "shop.new", delta=Histogram([1, 1], 2.0), peak=Histogram([1, 1], 2.0), evidence=None
    )
    newer = of(4, bounds=OTHER_BOUNDS, tasks=[new])
    both = of(3) + newer
    assert both.agent is not None
    assert newer.agent is not None
    assert both.agent.tasks == newer.agent.tasks
    assert both.agent.errors == 7
