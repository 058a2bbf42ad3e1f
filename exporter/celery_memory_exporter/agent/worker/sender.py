"""Sends reports over Celery's event stream, from the main process, on a connection of its own.

Never through the worker's own dispatcher, which drops foreign event groups without ``-E``. The
worker's loop runs this, so a broker that does not answer may cost it ``CONNECT_SECONDS`` once, then
ever more seldom; a report that could not be sent is dropped: the next one says all it said.
"""

from __future__ import annotations

import time
from typing import Any

from celery_memory_exporter.common.report import EVENT_TYPE

CONNECT_SECONDS = 2.0
MAX_PAUSE_SECONDS = 300.0
#: What the transports that know these options need in order not to wait or retry for long. The
#: others ignore them.
PATIENCE = {
    "socket_connect_timeout": CONNECT_SECONDS,
    "socket_timeout": CONNECT_SECONDS,
    "connect_timeout": CONNECT_SECONDS,
    "max_retries": 0,
}


class ReportSender:
    """``url`` names another broker than the worker's own. ``send`` raises what the transport
    raises."""

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
        """Publishes one report, connecting first where needed; whether it did: after a failure
        nothing is tried for a growing while."""
        if time.monotonic() < self._not_before:
            self.dropped += 1
            return False
        try:
            if self._dispatcher is None:
                self._connect()
            self._dispatcher.send(EVENT_TYPE, report=report)
            self._pause = 0.0
        except Exception:
            self.dropped += 1
            self.close()
            self._pause = min(MAX_PAUSE_SECONDS, max(CONNECT_SECONDS, 2 * self._pause))
            self._not_before = time.monotonic() + self._pause
            raise
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
            self._connection, hostname=self._hostname, buffer_while_offline=False
        )
