"""Sends reports over Celery's event stream, from the main process, on a connection of its own.

They are JSON, whatever serializer the application's own events have: the exporter reads no other.
Never through the worker's own dispatcher, which drops foreign event groups without ``-E``. The
worker's loop runs this, so a broker that does not answer may cost it ``CONNECT_SECONDS`` once, then
ever more seldom; a report that could not be sent is dropped: the next one says all it said.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery_memory_exporter.common.report import EVENT_TYPE
from celery_memory_exporter.common.urls import safe_url, without_passwords

logger = logging.getLogger("celery_memory_exporter.agent")


CONNECT_SECONDS = 2.0
MAX_PAUSE_SECONDS = 300.0
#: A report is mostly names and zeros: a sixth of it is left. The header tells kombu to undo it.
COMPRESSION = "zlib"
#: What the transports that know these options need in order not to wait or retry for long. The
#: others ignore them.
PATIENCE = {
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": CONNECT_SECONDS,
    "connect_timeout": CONNECT_SECONDS,
    "max_retries": 0,
}


class ReportSender:
    """``url`` names another broker than the worker's own."""

    def __init__(self, app: Any, hostname: str, url: str | None) -> None:
        self.dropped = 0
        self._app = app
        self._hostname = hostname
        self._url = url
        self._dispatcher: Any = None
        self._connection: Any = None
        self._pause = 0.0
        self._not_before = 0.0

    def send(self, report: dict[str, Any]) -> bool:
        """Publishes one report, connecting first where needed; whether it did. A failure is logged
        once until there is a success, and nothing is tried for a growing while."""
        if time.monotonic() < self._not_before:
            self.dropped += 1
            return False
        try:
            if self._dispatcher is None:
                self._connect()
            self._dispatcher.send(EVENT_TYPE, report=report)
            self._pause = 0.0
        except Exception as error:  # each transport raises its own
            self.dropped += 1
            self.close()
            if not self._pause:
                logger.warning(*self._complaint(error))
            self._pause = min(MAX_PAUSE_SECONDS, max(CONNECT_SECONDS, 2 * self._pause))
            self._not_before = time.monotonic() + self._pause
            return False
        return True

    def close(self) -> None:
        connection, self._connection, self._dispatcher = self._connection, None, None
        if connection is not None:
            connection.release()

    def _connect(self) -> None:
        options = (
            dict(PATIENCE) if self._url else {**self._app.conf.broker_transport_options, **PATIENCE}
        )
        self._connection = self._app.connection_for_write(
            self._url, connect_timeout=CONNECT_SECONDS, transport_options=options
        )
        self._connection.ensure_connection(max_retries=1, interval_start=0, timeout=CONNECT_SECONDS)
        self._dispatcher = self._app.events.Dispatcher(
            self._connection,
            hostname=self._hostname,
            buffer_while_offline=False,
            serializer="json",
        )
        self._dispatcher.producer.compression = COMPRESSION

    def _complaint(self, error: Exception) -> tuple[str, str, str, str]:
        """What is logged of it, in one line."""
        try:
            text = without_passwords(str(error), broker_url(self._app, self._url))
        except ValueError:
            text = "the URL cannot be understood"
        return (
            "The memory agent cannot report to %s, tasks are not affected and it goes on trying: "
            "%s: %s",
            destination(self._app, self._url),
            type(error).__name__,
            text[:300],
        )


def broker_url(app: Any, url: str | None) -> str:
    """Where reports go, with its secrets: ``url``, or the worker's own broker."""
    own = url or app.conf.broker_write_url or "amqp://"  # Celery's default
    return own if isinstance(own, str) else ";".join(own)


def destination(app: Any, url: str | None) -> str:
    """The same without passwords, and without options, which may hold some."""
    each_safe = safe_url(broker_url(app, url)).split(";")
    return ";".join(each.partition("?")[0] for each in each_safe)
