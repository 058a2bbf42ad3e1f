"""A real Prometheus scrapes the exporter: what dashboards and alerts of
danihodovic/celery-exporter ask, and what ``rate()`` makes of restarts."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import psutil
import pytest
import yaml
from celery import Celery
from kombu.exceptions import OperationalError

from tests.integration.conftest import INTERVAL, Exporter, Stage, Worker, wait_for
from tests.integration.observers import Prometheus
from tests.integration.test_agent import name_of
from tests.integration.test_outcomes import LONG_AGO, sending_app

pytestmark = pytest.mark.integration
SCRAPE_SECONDS = 1
JOB = "celery-exporter"
NAMESPACE = "shop"


@pytest.fixture
def exporter(stage: Stage) -> Exporter:
    path = stage.folder / "config.yaml"
    # Without the process table, which shows other tests' workers, too.
    settings = {
        "queues": {"interval_seconds": 1, "inspect_interval_seconds": 5},
        "processes": {"enabled": False},
    }
    path.write_text(yaml.safe_dump({"broker": {"url": stage.broker.url}, **settings}))
    return stage.exporter("--config", str(path), broker=False)


@pytest.fixture
def prometheus(stage: Stage, exporter: Exporter) -> Iterator[Prometheus]:
    prometheus = Prometheus(
        stage.folder, exporter.port, job=JOB, namespace=NAMESPACE, scrape_seconds=SCRAPE_SECONDS
    )
    try:
        prometheus.start()
        yield prometheus
    finally:
        prometheus.ensure_stopped()


class Load:
    """Calls ``send`` with a client's application and a producer at a steady pace, also when the
    broker was away."""

    def __init__(
        self, stage: Stage, send: Callable[[Celery, Any], object], per_second: float
    ) -> None:
        self._app = sending_app(stage)
        self._send = send
        self._pause = 1 / per_second
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause):
            with (
                contextlib.suppress(OSError, OperationalError),
                self._app.connection_for_write() as connection,
            ):
                self._send_all(connection.Producer())

    def _send_all(self, producer: Any) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            self._send(self._app, producer)
            due += self._pause
            self._stopping.wait(max(0.0, due - time.monotonic()))


# --- dashboards and alerts ----------------------------------------------------------------------

OUTCOMES = ("succeeded", "failed", "sent", "received", "rejected", "retried", "revoked")
OF_JOB = 'job="$job", queue_name=~"$queue_name"'
OF_TASK = 'job="$job", name=~"$task", queue_name=~"$queue_name"'


def count(outcome: str, which: str, over: str, by: str = "") -> str:
    return f"sum (round(increase(celery_task_{outcome}_total{{{which}}}[{over}]))) {by}"


def success_rate(which: str, over: str, by: str = "") -> str:
    succeeded, failed = (count(each, which, over, by) for each in ("succeeded", "failed"))
    return f"{succeeded} / ({succeeded} + {failed})"


def mean_runtime(by: str = "") -> str:
    total, runs = (
        f"sum (rate(celery_task_runtime_{each}{{{OF_JOB}}}[1w])) {by}" for each in ("sum", "count")
    )
    return f"{total} / {runs} > 0"


def quantile(share: str, which: str, by: str) -> str:
    rates = f"irate(celery_task_runtime_bucket{{{which}}}[$__rate_interval]) > 0"
    return f"histogram_quantile({share}, sum({rates}) by ({by}))"


#: Each expression of the two dashboards, Grafana 17509 and 17508, in their panels' order.
OVERVIEW = [
    'count(celery_worker_up{job="$job",} == 1)',
    'sum(celery_worker_tasks_active{job="$job",})',
    count("received", OF_JOB, "1w"),
    success_rate(OF_JOB, "1w"),
    mean_runtime(),
    f"round(sum (increase(celery_task_failed_total{{{OF_JOB}}}[1w]) > 0) by (job, name))",
    f"round(sum (increase(celery_task_failed_total{{{OF_JOB}}}[1w])) by (job, exception) > 0)",
    mean_runtime("by(name)"),
    f"sum (celery_queue_length{{{OF_JOB}}}) by (job, queue_name)",
    f"{success_rate(OF_JOB, '$__range', 'by (job)')} > -1",
    *(f"{count(each, OF_JOB, '$__range', 'by (job)')} > 0" for each in OUTCOMES),
    *(count(each, OF_JOB, "$__rate_interval") for each in OUTCOMES),
    *(quantile(share, OF_JOB, "job, le") for share in ("0.50", "0.95", "0.99")),
]
BY_TASK = [
    f"{success_rate(OF_TASK, '$__range', 'by (name)')} > -1",
    *(f"{count(each, OF_TASK, '$__range', 'by (name)')} > 0" for each in OUTCOMES),
    f"round(sum (increase(celery_task_failed_total{{{OF_TASK}}}[$__range])) by (name, exception) > "
    "0)",
    *(f"{count(each, OF_TASK, '$__rate_interval', 'by (name)')} > 0" for each in OUTCOMES),
    f"{count('failed', OF_TASK, '$__rate_interval', 'by (name, exception)')} > 0",
    *(quantile(share, OF_TASK, "name, job, le") for share in ("0.50", "0.95", "0.99")),
]
#: What the dashboards' variables choose from: series, and the label.
VARIABLES = [
    ("celery_worker_up{}", "namespace"),
    ('celery_worker_up{namespace="$namespace"}', "job"),
    ('celery_task_received_total{namespace="$namespace", job="$job", name!~"None"}', "queue_name"),
    (
        'celery_task_received_total{namespace="$namespace", job="$job", queue_name=~"$queue_name", '
        'name!~"None"}',
        "name",
    ),
]
OF_ANY = 'job=~".*celery.*", queue_name!~"None"'


def within_ten_minutes(outcome: str) -> str:
    increase = f'increase(celery_task_{outcome}_total{{{OF_ANY}, name!~"None"}}[10m])'
    return f"sum({increase}) by (job, namespace, queue_name, name)"


#: What each alert looks at, and when it fires.
ALERTS = {
    "CeleryTaskHighFailRate": (
        f"{within_ten_minutes('failed')} / ({within_ten_minutes('failed')} + "
        f"{within_ten_minutes('succeeded')}) * 100",
        "> 5",
    ),
    "CeleryHighQueueLength": (
        f"sum(celery_queue_length{{{OF_ANY}}}) by (job, namespace, queue_name)",
        "> 100",
    ),
    "CeleryWorkerDown": ('celery_worker_up{job=~".*celery.*"}', "== 0"),
}


def substituted(expression: str, worker: Worker, tasks: list[str]) -> str:
    """As Grafana does it; several tasks are chosen at once."""
    variables = {
        "$__rate_interval": f"{4 * SCRAPE_SECONDS}s",
        "$__range": "2d",
        "$namespace": NAMESPACE,
        "$job": JOB,
        "$queue_name": worker.queue,
        "$task": f"({'|'.join(re.escape(each).replace(chr(92), chr(92) * 2) for each in tasks)})",
    }
    for variable, value in variables.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


def workers_of_both_kinds(stage: Stage, exporter: Exporter) -> tuple[Worker, Worker]:
    """With the agent, and with events."""
    workers = stage.worker("-c", "2"), stage.worker("-c", "2", "-E", agent=False)
    for worker in workers:
        # From then on it is known which queue is whose.
        consumed = partial(exporter.value, "celery_active_worker_count", queue_name=worker.queue)
        wait_for(consumed, "what the worker consumes")
    return workers


def test_dashboards_and_alerts_of_the_best_known_exporter_have_data(
    stage: Stage, exporter: Exporter, prometheus: Prometheus
) -> None:
    workers = workers_of_both_kinds(stage, exporter)
    names = [name_of(each) for each in ("noop", "fail", "retry_once", "reject", "too_late")]

    def send(app: Celery, producer: Any) -> None:
        for worker, name in itertools.product(workers, names):
            app.send_task(
                name,
                queue=worker.queue,
                producer=producer,
                expires=LONG_AGO if "too_late" in name else None,
            )

    with Load(stage, send, per_second=5):
        for worker in workers:
            for expression in [*OVERVIEW, *BY_TASK, *(vector for vector, _ in ALERTS.values())]:
                asked = substituted(expression, worker, names)
                wait_for(lambda asked=asked: prometheus.query(asked), f"data of {asked}")
            for series, label in VARIABLES:
                asked = substituted(series, worker, names)
                assert prometheus.ask(f"label/{label}/values", **{"match[]": asked}), (
                    series,
                    label,
                )
        fires = {
            alert: prometheus.query(f"{vector} {when}") for alert, (vector, when) in ALERTS.items()
        }
    high = {
        (each["metric"]["queue_name"], each["metric"]["name"])
        for each in fires.pop("CeleryTaskHighFailRate")
    }
    assert high >= {(worker.queue, name_of("fail")) for worker in workers}
    assert not high & {(worker.queue, name_of("noop")) for worker in workers}
    assert fires == {"CeleryHighQueueLength": [], "CeleryWorkerDown": []}


# --- restarts -----------------------------------------------------------------------------------

PER_SECOND = 20
#: With two children some 40 a second: what waited during an outage is not done all at once.
TASK_SECONDS = 0.045
#: Long enough for what jitter of reports and scrapes makes of a step to be small.
OVER_SECONDS = 10
STEADY_SECONDS = 3
#: After what was away is back: a report, two samples of it, and a second that has begun.
LATE_SECONDS = INTERVAL + 3 * SCRAPE_SECONDS


@dataclasses.dataclass
class Outage:
    """Unix times. What was away is back at its end."""

    what: str
    begin: float
    end: float = dataclasses.field(default=float("inf"))


class Outages(list[Outage]):
    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        self.append(Outage(what, time.time()))
        yield
        self[-1].end = time.time()

    def of(self, what: str) -> Outage:
        (outage,) = (each for each in self if each.what == what)
        return outage


def children(worker: Worker) -> list[psutil.Process]:
    return psutil.Process(worker.pid).children()


def kill_a_child(worker: Worker) -> None:
    before = children(worker)
    before[0].kill()
    wait_for(
        lambda: len(now := children(worker)) == len(before) and before[0] not in now,
        "another child",
    )


def restart_killed(worker: Worker) -> None:
    assert worker.process is not None
    orphans = children(worker)
    worker.process.kill()
    worker.process.wait()
    _, alive = psutil.wait_procs(orphans, timeout=10)
    assert not alive, "children of a killed worker end by themselves"
    started = worker.text.count(" ready.")
    worker.start()
    wait_for(lambda: worker.text.count(" ready.") > started, "the worker to be ready again")


def restart_broker(stage: Stage, exporter: Exporter, workers: tuple[Worker, ...]) -> set[str]:
    """Names of workers that died of it, since kombu 5.7 cannot always close what is broken. They
    are started again, as is usual."""
    connected = {worker: worker.text.count("Connected to ") for worker in workers}
    died = set()

    def is_back(worker: Worker) -> bool:
        assert worker.process is not None
        if worker.process.poll() is not None:
            died.add(worker.nodename)
            worker.start()
        return worker.text.count("Connected to ") > connected[worker]

    stage.broker.stop()
    wait_for(lambda: not exporter.ready(), "the exporter to notice")
    stage.broker.start()
    for worker in workers:
        wait_for(lambda worker=worker: is_back(worker), "the worker to be connected again")
    wait_for(exporter.ready, "the exporter to be connected again")
    return died


def restart_exporter(exporter: Exporter) -> None:
    exporter.stop()
    exporter.start()
    wait_for(exporter.ready, "the exporter to be ready again")


def holes(values: dict[int, float], begin: float, end: float) -> Iterator[tuple[int, int]]:
    """First and last second of each stretch without a value, or with none but zero."""
    empty = [second for second in range(int(begin), int(end) + 1) if not values.get(second)]
    for _, stretch in itertools.groupby(enumerate(empty), lambda each: each[1] - each[0]):
        seconds = [second for _, second in stretch]
        yield seconds[0], seconds[-1]


def succeeded_of(worker: Worker) -> str:
    return f'celery_task_succeeded_total{{worker="{worker.nodename}", name="{name_of("sleep")}"}}'


def check_rates(
    prometheus: Prometheus, worker: Worker, outages: Outages, *, begin: float, end: float
) -> None:
    series = succeeded_of(worker)
    rates = prometheus.values(f"sum(rate({series}[{OVER_SECONDS}s])) by (worker)", begin, end)
    shortest = prometheus.values(
        f"sum(rate({series}[{4 * SCRAPE_SECONDS}s])) by (worker)", begin, end
    )
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
            app.send_task(
                name_of("sleep"),
                (TASK_SECONDS,),
                queue=worker.queue,
                producer=producer,
                retry=False,
            )

    def wait_until_steady() -> None:
        since = time.time() + STEADY_SECONDS
        enough = [
            f"sum(rate({succeeded_of(worker)}[{STEADY_SECONDS}s])) > {PER_SECOND / 2}"
            for worker in workers
        ]
        wait_for(
            lambda: time.time() > since and all(map(prometheus.query, enough)), "a steady rate"
        )

    outages = Outages()
    with Load(stage, send, PER_SECOND):
        wait_until_steady()
        begin = time.time()
        for _ in range(2):
            for worker in workers:
                kill_a_child(worker)
            wait_until_steady()
        with outages.during("worker"):
            for worker in workers:
                restart_killed(worker)
        wait_until_steady()
        with outages.during("broker"):
            died = restart_broker(stage, exporter, workers)
        wait_until_steady()
        with outages.during("exporter"):
            restart_exporter(exporter)
        wait_until_steady()
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
