"""What ``rate()`` makes of restarts, on a real Prometheus that scrapes the exporter."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from tests.integration.client import Load
from tests.integration.exporter import Exporter
from tests.integration.observers import Prometheus
from tests.integration.outages import (
    Outages,
    kill_a_child,
    restart_broker,
    restart_exporter,
    restart_killed,
)
from tests.integration.scraped import SCRAPE_SECONDS, exporter, prometheus, workers_of_both_kinds
from tests.integration.stage import Stage
from tests.integration.waiting import wait_for
from tests.integration.worker import INTERVAL, Worker, name_of

__all__ = ["exporter", "prometheus"]

pytestmark = pytest.mark.integration

PER_SECOND = 20
#: With two children some 40 a second: what waited during an outage is not done all at once.
TASK_SECONDS = 0.045
#: Long enough for what jitter of reports and scrapes makes of a step to be small.
OVER_SECONDS = 10
STEADY_SECONDS = 3
#: After what was away is back: a report, two samples of it, and a second that has begun.
LATE_SECONDS = INTERVAL + 3 * SCRAPE_SECONDS


def succeeded_of(worker: Worker) -> str:
    return f'celery_task_succeeded_total{{worker="{worker.nodename}", name="{name_of("sleep")}"}}'


def rate_of(worker: Worker, seconds: float) -> str:
    return f"sum(rate({succeeded_of(worker)}[{seconds:.0f}s])) by (worker)"


def wait_until_steady(prometheus: Prometheus, workers: tuple[Worker, ...]) -> None:
    since = time.time() + STEADY_SECONDS

    def rates() -> list[float]:
        answers = [prometheus.query(rate_of(worker, STEADY_SECONDS)) for worker in workers]
        return [float(each["value"][1]) for answer in answers for each in answer]

    wait_for(
        rates,
        f"steady rates of {[worker.nodename for worker in workers]}",
        lambda seen: (
            time.time() > since and len(seen) == len(workers) and min(seen) > PER_SECOND / 2
        ),
    )


def disturb(
    stage: Stage, exporter: Exporter, prometheus: Prometheus, workers: tuple[Worker, ...]
) -> tuple[Outages, set[str]]:
    """One outage after another, between steady rates; also the names of the workers that died of
    the broker's."""
    outages = Outages()
    for _ in range(2):
        for worker in workers:
            kill_a_child(worker)
        wait_until_steady(prometheus, workers)
    with outages.during("worker"):
        for worker in workers:
            restart_killed(worker)
    wait_until_steady(prometheus, workers)
    with outages.during("broker"):
        died = restart_broker(stage.broker, exporter, *workers)
    wait_until_steady(prometheus, workers)
    with outages.during("exporter"):
        restart_exporter(exporter)
    wait_until_steady(prometheus, workers)
    return outages, died


def holes(values: dict[int, float], begin: float, end: float) -> Iterator[tuple[int, int]]:
    """First and last second of each stretch without a value, or with none but zero."""
    empty = [second for second in range(int(begin), int(end) + 1) if not values.get(second)]
    for _, stretch in itertools.groupby(enumerate(empty), lambda each: each[1] - each[0]):
        seconds = [second for _, second in stretch]
        yield seconds[0], seconds[-1]


def check_rates(
    prometheus: Prometheus, worker: Worker, outages: Outages, *, begin: float, end: float
) -> None:
    rates = prometheus.values(rate_of(worker, OVER_SECONDS), begin, end)
    shortest = prometheus.values(rate_of(worker, 4 * SCRAPE_SECONDS), begin, end)
    # For whoever looks into what failed.
    record = {
        "begin": begin,
        "end": end,
        "outages": list(map(dataclasses.asdict, outages)),
        "rates": rates,
        "shortest": shortest,
    }
    worker.log.with_suffix(".json").write_text(json.dumps(record))
    assert max(rates.values()) <= 2 * PER_SECOND, rates
    for first, last in holes(shortest, begin, end):
        short = last - first + 1 <= INTERVAL
        excused = any(
            each.begin - 1 <= first and last <= each.end + LATE_SECONDS for each in outages
        )
        assert short or excused, (first, last, record)


def falls(prometheus: Prometheus, worker: Worker, seconds: float) -> list[float]:
    """When the worker's counter stood lower than at the scrape before; in whatever queue."""
    found = prometheus.query(f"{succeeded_of(worker)}[{seconds:.0f}s]")
    pairs = [pair for each in found for pair in itertools.pairwise(each["values"])]
    return [after for (_, before), (after, value) in pairs if float(value) < float(before)]


def test_rates_show_no_spike_and_no_hole_over_restarts(
    stage: Stage, exporter: Exporter, prometheus: Prometheus
) -> None:
    workers = agent, events = workers_of_both_kinds(stage, exporter)

    def send(app: Celery, producer: Any) -> None:
        for worker in workers:
            to = {"queue": worker.queue, "producer": producer, "retry": False}
            app.send_task(name_of("sleep"), (TASK_SECONDS,), **to)

    with Load(stage, send, PER_SECOND):
        wait_until_steady(prometheus, workers)
        begin = time.time()
        outages, died = disturb(stage, exporter, prometheus, workers)
        end = time.time()

    for worker in workers:
        check_rates(prometheus, worker, outages, begin=begin, end=end)
    # By events the exporter itself has counted, and goes on when the worker begins anew.
    restarts = {
        agent: ["worker", *(["broker"] if agent.nodename in died else [])],
        events: ["exporter"],
    }
    for worker, whats in restarts.items():
        allowed = [outages.of(what) for what in whats]
        fell = falls(prometheus, worker, end - begin)
        assert len(fell) <= len(allowed)
        assert all(
            any(each.begin <= at <= each.end + LATE_SECONDS for each in allowed) for at in fell
        ), (fell, outages)
    assert falls(prometheus, agent, end - begin)
