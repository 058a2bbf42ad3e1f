"""A flood of task events, published as Celery's own workers and clients publish them:
``python -m tests.bench.flood URL NAME``.

Workers' events go through Celery's dispatcher, 24 in a message, and each client's ``task-sent`` in
one of its own. A number on standard input is so many tasks, each from ``task-sent`` to
``task-succeeded``; 0 is a heartbeat. A line on standard output tells that it is done: nothing comes
that was not asked for, so that the flood ends where the benchmark says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count, islice

from celery import Celery, uuid
from celery.events.dispatcher import EventDispatcher

WORKERS, TASK_TYPES, EVENTS_PER_TASK = 4, 20, 4
#: As in the worker (``celery.worker.consumer.events``): what the dispatcher puts in one message.
BUFFERED = ["task"]
#: Tasks between two heartbeats of a worker; one that runs 250 tasks in a second sends one every two
#: seconds.
TASKS_BETWEEN_BEATS = 500


class FloodWorker:
    """Events of one worker, which runs what it receives."""

    def __init__(self, app: Celery, connection: object, nodename: str) -> None:
        self._dispatcher: EventDispatcher = app.events.Dispatcher(
            connection, hostname=nodename, buffer_group=BUFFERED
        )
        self._processed = 0

    def run(self, identifier: str, name: str) -> None:
        send = self._dispatcher.send
        arguments = {"args": "(7, 'a name')", "kwargs": "{'dry': False}"}
        where = {
            "root_id": identifier,
            "parent_id": None,
            "retries": 0,
            "eta": None,
            "expires": None,
        }
        send("task-received", uuid=identifier, name=name, **arguments, **where)
        send("task-started", uuid=identifier)
        send("task-succeeded", uuid=identifier, result="None", runtime=0.0123)
        self._processed += 1
        if self._processed % TASKS_BETWEEN_BEATS == 0:
            self.beat()

    def flush(self) -> None:
        self._dispatcher.flush()

    def beat(self) -> None:
        self._dispatcher.send(
            "worker-heartbeat", freq=2.0, active=0, processed=self._processed, loadavg=(0, 0, 0)
        )


class Client:
    """Events of an application that sends tasks."""

    def __init__(self, app: Celery, connection: object, nodename: str) -> None:
        self._dispatcher: EventDispatcher = app.events.Dispatcher(connection, hostname=nodename)

    def send(self, identifier: str, name: str) -> None:
        what = {
            "args": "(7, 'a name')",
            "kwargs": "{'dry': False}",
            "retries": 0,
            "eta": None,
            "expires": None,
        }
        where = {
            "queue": "celery",
            "exchange": "",
            "routing_key": "celery",
            "root_id": identifier,
            "parent_id": None,
        }
        self._dispatcher.send("task-sent", uuid=identifier, name=name, **what, **where)


def numbers() -> Iterator[int]:
    return map(int, iter(sys.stdin.readline, ""))


def main(url: str, name: str) -> None:
    app = Celery(broker=url, set_as_current=False)
    with app.connection_for_write() as connection:
        workers = [
            FloodWorker(app, connection, f"celery@{name}-{number}") for number in range(WORKERS)
        ]
        client = Client(app, connection, f"gen1@{name}-web")
        upcoming = count()
        for wanted in numbers():
            for number in islice(upcoming, wanted):
                identifier, task = uuid(), f"shop.tasks.task_{number % TASK_TYPES}"
                client.send(identifier, task)
                workers[number % WORKERS].run(identifier, task)
            for worker in workers:
                worker.flush()
                if not wanted:
                    worker.beat()
            print(wanted, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
