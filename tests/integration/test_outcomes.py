"""What became of each of a thousand tasks, in every pool: by the agent's reports, by events, and by
both at once.

The expected figures are Celery's own events', which a plain receiver counts in the same run where
the worker sends them. ``OUTCOMES=1000`` makes it a thousand of each in all pools; without it there
are fewer.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

import celery
import pytest
from celery import Celery
from celery.events.receiver import EventReceiver
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import Exporter, Stage, Worker, wait_for
from tests.integration.test_agent import name_of, no_agent_trouble

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FEW, MANY = 50, 300
#: Tasks whose clients tell that they sent them. What is revoked when it arrives has no other name
#: where there is no agent.
TELLING = ("noop", "too_late", "unwanted")
#: The task that is sent when all others are done.
LAST = "sleep"
TIMES = os.environ.get("OUTCOMES")
LONG_AGO = datetime.now(timezone.utc) - timedelta(hours=1)
#: Figures by task, field and exception.
Figures = dict[tuple[str, str, str], float]
FIELDS = ("received", "started", "succeeded", "failed", "retried", "rejected", "revoked")
#: Since then Celery records what a task rejects for good as failed, too.
REJECTED_FAILS = tuple(map(int, re.findall(r"\d+", celery.__version__)[:2])) >= (5, 7)
#: What one task of each comes to. What is expired or revoked when it arrives is never received.
EACH: dict[str, dict[tuple[str, str], int]] = {
    "noop": {("received", ""): 1, ("started", ""): 1, ("succeeded", ""): 1},
    "fail": {("received", ""): 1, ("started", ""): 1, ("failed", "ValueError"): 1},
    "retry_once": {
        ("received", ""): 2,
        ("started", ""): 2,
        ("retried", ""): 1,
        ("succeeded", ""): 1,
    },
    "reject": {
        ("received", ""): 1,
        ("started", ""): 1,
        ("rejected", ""): 1,
        **({("failed", "Reject"): 1} if REJECTED_FAILS else {}),
    },
    "too_late": {("revoked", ""): 1},
    "unwanted": {("revoked", ""): 1},
}


def expected(tasks: Counter[str]) -> Figures:
    return {
        (task, *what): count * times
        for task, times in tasks.items()
        for what, count in EACH[task].items()
    }


def shown(exporter: Exporter, worker: Worker) -> Figures:
    """What the exporter has counted of the worker's tasks, without zeros."""
    figures: Figures = {}
    families = {f"celery_task_{field}_total": field for field in FIELDS}
    text = exporter.text_of(f"/metrics?{urlencode([('name[]', family) for family in families])}")
    for metric in text_string_to_metric_families(text):
        for name, labels, value, *_ in metric.samples:
            if labels["worker"] == worker.nodename and value:
                assert (labels["hostname"], labels["queue_name"]) == ("localhost", worker.queue)
                figures[
                    labels["name"].rpartition(".")[2], families[name], labels.get("exception", "")
                ] = value
    return figures


CONFIG = """
broker: {{url: "{url}"}}
queues: {{interval_seconds: 1, inspect_interval_seconds: 5}}
"""


def exporter_of(stage: Stage) -> Exporter:
    path = stage.folder / "config.yaml"
    path.write_text(CONFIG.format(url=stage.broker.url))
    return stage.exporter("--config", str(path), broker=False)


class Witness:
    """Celery's own events of tasks, as its own receiver hears them."""

    def __init__(self, stage: Stage) -> None:
        #: Task by id.
        self.names: dict[str, str] = {}
        self._events: list[tuple[str, str, str, str]] = []
        self._app = sending_app(stage)
        self._listening, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Witness:
        self._thread.start()
        assert self._listening.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def figures(self, worker: Worker) -> Figures:
        counts: Counter[tuple[str, str, str]] = Counter()
        for nodename, kind, uuid, exception in list(self._events):
            if nodename == worker.nodename:
                counts[self.names.get(uuid, LAST), kind, exception] += 1
        return dict(counts)

    def heard_the_last(self, worker: Worker) -> bool:
        return self.figures(worker).get((LAST, "succeeded", "")) == 1

    def _run(self) -> None:
        listening, stopping = self._listening, self._stopping

        class Receiver(EventReceiver):
            # Looked at once a second. A timeout would end the subscription, and events between two
            # are nobody's.
            should_stop = property(lambda _: stopping.is_set())

            def on_consume_ready(self, *_: Any, **__: Any) -> None:
                listening.set()

        with self._app.connection_for_read() as connection:
            receiver = Receiver(connection, {"*": self._take}, routing_key="task.#", app=self._app)
            receiver.capture(limit=None, timeout=None, wakeup=False)

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["type"].removeprefix("task-")
        if kind != "sent":
            exception = exception_of(event) if kind == "failed" else ""
            self._events.append((event["hostname"], kind, event["uuid"], exception))


def exception_of(event: dict[str, Any]) -> str:
    """By the traceback's last line, which has the class also where Celery shows only what the
    exception came in."""
    line: str = event["traceback"].rstrip().splitlines()[-1]
    return line.partition(":")[0].rpartition(".")[2]


def sending_app(stage: Stage) -> Celery:
    """Of a client that tells what it sends."""
    app = Celery("client", broker=stage.broker.url, set_as_current=False)
    app.conf.task_send_sent_event = True
    return app


class Client:
    """Sends tasks, and knows what it sent."""

    def __init__(self, stage: Stage, worker: Worker) -> None:
        self.sent: Counter[str] = Counter()
        self._app = sending_app(stage)
        self.worker = worker

    def send(self, task: str, *arguments: Any, times: int = 1, **options: Any) -> dict[str, str]:
        """The tasks, by id."""
        ids = [celery.utils.uuid() for _ in range(times)]
        with self._app.connection_for_write() as connection:
            if task == "unwanted":
                self._revoke(ids, connection)
            self._app.conf.task_send_sent_event = task in TELLING
            to = {"queue": self.worker.queue, "producer": connection.Producer()}
            for each in ids:
                self._app.send_task(name_of(task), arguments, task_id=each, **to, **options)
        self.sent[task] += times
        return dict.fromkeys(ids, task)

    def _revoke(self, ids: list[str], connection: Any) -> None:
        answers = self._app.control.revoke(
            ids, destination=[self.worker.nodename], reply=True, timeout=30, connection=connection
        )
        assert len(answers) == 1

    def send_each(self, times: int) -> dict[str, str]:
        options = {"too_late": {"expires": LONG_AGO}}
        return {
            uuid: task
            for each in EACH
            for uuid, task in self.send(each, times=times, **options.get(each, {})).items()
        }


def without_last(figures: Figures) -> Figures:
    return {key: value for key, value in figures.items() if key[0] != LAST}


def wait_for_figures(exporter: Exporter, client: Client, wanted: Figures) -> None:
    """All that is wanted, and then, when a task that was sent last is told of, nothing more."""
    worker = client.worker
    seen: list[Figures] = [{}]

    def reached() -> bool:
        seen.append(shown(exporter, worker))
        return all(seen[-1].get(key, 0) >= value for key, value in wanted.items())

    try:
        wait_for(reached, "all outcomes", patience=300)
    except AssertionError as error:
        short = {
            key: (seen[-1].get(key, 0), value)
            for key, value in wanted.items()
            if seen[-1].get(key, 0) < value
        }
        raise AssertionError(f"{error}; short (shown, wanted): {short}") from None
    client.send(LAST, 0)
    wait_for(lambda: shown(exporter, worker).get((LAST, "succeeded", "")) == 1, "the last task")
    assert without_last(shown(exporter, worker)) == wanted


@dataclass(frozen=True)
class Told:
    """A worker, and how the exporter comes to know what its tasks came to."""

    options: tuple[str, ...]
    agent: bool = True
    pool: str = "prefork"

    @property
    def events(self) -> bool:
        return "-E" in self.options


AGENT = Told(())
EVENTS = Told(("-E",), agent=False)
BOTH = Told(("-E",))
SILENT = Told(("--without-gossip", "--without-heartbeat", "--without-mingle"))


@contextmanager
def workers(stage: Stage, exporter: Exporter, *told: Told) -> Iterator[list[tuple[Told, Client]]]:
    """Side by side. From then on it is known which queue is whose, whether or not the clients'
    events come first."""
    options = {"TEST_TASK_LOG": "CRITICAL"}
    clients = [
        Client(
            stage,
            stage.worker("-P", each.pool, "-c", "2", *each.options, agent=each.agent, **options),
        )
        for each in told
    ]
    queues = [client.worker.queue for client in clients]
    wait_for(
        lambda: all(
            exporter.value("celery_active_worker_count", queue_name=each) == 1 for each in queues
        ),
        "the queues",
    )
    yield list(zip(told, clients, strict=True))
    for client in clients:  # at once, since each takes its time to stop
        assert client.worker.process is not None
        client.worker.process.terminate()


def run_each(stage: Stage, times: int, *told: Told) -> None:
    """So many tasks of each kind on each worker."""
    exporter = exporter_of(stage)
    with Witness(stage) as witness, workers(stage, exporter, *told) as clients:
        for _, client in clients:
            witness.names.update(client.send_each(times))
        for each, client in clients:
            wanted = expected(client.sent)
            wait_for_figures(exporter, client, wanted)
            if each.events:
                wait_for(
                    lambda worker=client.worker: witness.heard_the_last(worker),
                    "the last task's event",
                )
                assert without_last(witness.figures(client.worker)) == wanted
            check_the_rest(exporter, client, each)


def check_the_rest(exporter: Exporter, client: Client, told: Told) -> None:
    worker = client.worker
    for task in TELLING:
        sent = exporter.value(
            "celery_task_sent_total",
            name=name_of(task),
            hostname="generic",
            queue_name=worker.queue,
        )
        assert sent == client.sent[task]
    for task in ("noop", "retry_once"):
        runtimes = exporter.value(
            "celery_task_runtime_count", name=name_of(task), worker=worker.nodename
        )
        assert runtimes == client.sent[task]
    if told.agent:
        assert no_agent_trouble(exporter, worker)
    else:
        assert not exporter.value(
            "celery_memory_exporter_events_lost_total", worker=worker.nodename
        )


@pytest.mark.parametrize(
    "pools", [("prefork",), ("threads", "solo"), ("gevent", "eventlet")], ids="-".join
)
def test_every_outcome_is_counted_by_agent_and_by_events_exactly(
    stage: Stage, pools: tuple[str, ...]
) -> None:
    times = int(TIMES or (MANY if pools == ("prefork",) else FEW))
    run_each(
        stage, times, *(replace(told, pool=pool) for pool in pools for told in (AGENT, EVENTS))
    )


def test_neither_a_worker_with_agent_and_events_nor_one_that_talks_to_no_other_is_counted_wrongly(
    stage: Stage,
) -> None:
    run_each(stage, int(TIMES or FEW), BOTH, SILENT)


def test_what_no_pool_process_lives_to_tell(stage: Stage) -> None:
    """Hard time limits, and children that are killed."""
    exporter = exporter_of(stage)
    wanted: Figures = {
        (task, field, ""): 2 for task in ("die", "overrun") for field in ("received", "started")
    }
    wanted |= {
        ("die", "failed", "WorkerLostError"): 2,
        ("overrun", "failed", "TimeLimitExceeded"): 2,
    }
    with Witness(stage) as witness, workers(stage, exporter, EVENTS, AGENT, SILENT) as clients:
        for _, client in clients:
            witness.names.update(client.send("die", times=2))
            witness.names.update(client.send("overrun", times=2, time_limit=1))
        for _, client in clients:
            wait_for_figures(exporter, client, wanted)
        worker = clients[0][1].worker
        wait_for(lambda: witness.heard_the_last(worker), "the last task's event")
        heard = without_last(witness.figures(worker))
    # Celery 5.7 tells of each hard time limit twice.
    twice = ("overrun", "failed", "TimeLimitExceeded")
    assert heard == {**wanted, twice: heard[twice]}
