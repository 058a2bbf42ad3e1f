"""What tasks come to: sent by a client that knows what it sent, heard by Celery's own receiver, and
shown by the exporter."""

from __future__ import annotations

import re
import threading
from collections import Counter
from typing import Any
from urllib.parse import urlencode

import celery
from celery.events.receiver import EventReceiver
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.client import LONG_AGO, sending_app
from tests.integration.exporter import Exporter
from tests.integration.stage import Stage
from tests.integration.waiting import PATIENCE, equals, wait_for
from tests.integration.worker import Worker, name_of

#: Tasks whose clients tell that they sent them. What is revoked when it arrives has no other name
#: where there is no agent.
TELLING = ("noop", "too_late", "unwanted")
#: The task that is sent when all others are done.
LAST = "sleep"
#: Then a worker is told again.
ANSWER_SECONDS = 30
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


def without_last(figures: Figures) -> Figures:
    return {key: value for key, value in figures.items() if key[0] != LAST}


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
        assert self._listening.wait(PATIENCE)
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

    def wait_for_the_last(self, worker: Worker) -> None:
        wait_for(
            lambda: self.figures(worker).get((LAST, "succeeded", "")),
            f"the event of the last task of {worker.nodename}",
            equals(1),
        )

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
        def answers() -> list[Any]:
            found: list[Any] = self._app.control.revoke(
                ids,
                destination=[self.worker.nodename],
                reply=True,
                timeout=ANSWER_SECONDS,
                connection=connection,
            )
            return found

        wait_for(answers, f"{self.worker.nodename} to take what is revoked")

    def send_each(self, times: int) -> dict[str, str]:
        options = {"too_late": {"expires": LONG_AGO}}
        return {
            uuid: task
            for each in EACH
            for uuid, task in self.send(each, times=times, **options.get(each, {})).items()
        }
