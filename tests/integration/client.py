"""Clients that send tasks, and tell what they sent."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from tests.integration.stage import Stage

#: A task that expires then never runs.
LONG_AGO = datetime.now(timezone.utc) - timedelta(hours=1)


def sending_app(stage: Stage) -> Celery:
    """Of a client that tells what it sends."""
    app = Celery("client", broker=stage.broker.url, set_as_current=False)
    app.conf.task_send_sent_event = True
    return app


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
            # What a stalled machine kept it from is not made up for: that would be no steady pace.
            due = max(due + self._pause, time.monotonic())
            self._stopping.wait(due - time.monotonic())
