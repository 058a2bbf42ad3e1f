"""Where runs overlap: what runs that happen to be alone add to containers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter.conditions import Conditions
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.worker.shares import Added, Shares
from celery_memory_exporter.common.evidence import WARM_RUNS
from tests.agent.conftest import Define

RUNS = 150


@pytest.fixture
def run(define: Define) -> Iterator[Callable[..., Shares]]:
    """Runs task bodies by name, all in turn, in a process whose runs may overlap, and answers with
    what it knows of containers."""

    def run_all(**bodies: Callable[[int], object]) -> Shares:
        readings = Readings()
        meter = Meter(Guard(), readings, Conditions(200, audits=False))
        meter.containers = shares = Shares(readings, meter)

        def traced(body: Callable[[int], object]) -> Callable[..., Any]:
            return lambda uuid, args, kwargs, request: trace_ok_t(body(*args), None, 0.1, "")

        traces = {name: measured(meter, name, traced(body)) for name, body in bodies.items()}
        for number in range(RUNS):
            for trace in traces.values():
                trace("uuid", (number,), {}, {})
            shares.search()
        assert meter.guard.errors == 0
        return shares

    return run_all


def test_the_container_that_a_tasks_runs_fill_is_its_holder(
    define: Define, run: Callable[..., Shares]
) -> None:
    shop = define("HELD = []")
    shares = run(leaking=shop.HELD.append, innocent=len_of)
    (holder,) = [each for each in shares.holders("leaking") if each.path == "shop.HELD"]
    assert (holder.kind, holder.items) == ("list", RUNS)
    assert holder.share is not None
    assert (holder.share.per_run, holder.share.error) == (1.0, 0.0)
    assert not shares.holders("innocent")


def len_of(number: int) -> int:
    return len(str(number))


def test_what_fills_while_a_task_starts_up_holds_nothing(
    define: Define, run: Callable[..., Shares]
) -> None:
    shop = define("HELD = []")
    shares = run(
        caching=lambda number: shop.HELD.append(number) if len(shop.HELD) < WARM_RUNS else None
    )
    assert not shares.holders("caching")


def test_another_tasks_container_is_not_ones_own(
    define: Define, run: Callable[..., Shares]
) -> None:
    shop = define("ONE, TWO = [], {}")
    shares = run(one=shop.ONE.append, two=lambda number: shop.TWO.update({number: number}))
    assert [each.path for each in shares.holders("one")] == ["shop.ONE"]
    assert [each.path for each in shares.holders("two")] == ["shop.TWO"]


def test_what_stopped_growing_shows_in_the_later_half() -> None:
    added = Added()
    for number in range(100):
        added.add(1.0 if number < 50 else 0.0)
    estimate = added.estimate()
    assert (estimate.per_run, estimate.runs) == (0.5, 100)
    assert estimate.late_per_run == pytest.approx((50 - 32) / 68), (
        "since the last power of two below the half"
    )
