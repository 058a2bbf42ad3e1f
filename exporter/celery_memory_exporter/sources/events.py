"""The broker loop: subscribes to Celery's event exchange and hands on what arrives, until told to
stop.

* Own queue bindings for ``memory.#``, ``worker.#`` and, unless it is turned off, ``task.#``:
  brokers with topics (RabbitMQ) send nothing else, and Redis' pattern subscription neither.
* A lost connection is made anew with capped exponential pauses; nothing that arrives can end the
  loop.
* A message is refused by its size before it is parsed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import kombu
from celery.events.event import get_exchange
from kombu import Connection, Consumer, Queue, binding

from celery_memory_exporter.common.codec import (
    MAX_MESSAGE_BYTES,
    MAX_NODENAME_LENGTH,
    MAX_NUMBER,
    DecodeError,
    count_of,
    decode,
)
from celery_memory_exporter.common.names import printable
from celery_memory_exporter.common.report import EVENT_TYPE
from celery_memory_exporter.common.urls import safe_url
from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.sources.broker import CONNECT_SECONDS, connect, explain
from celery_memory_exporter.sources.poller import Attempt, Poller

logger = logging.getLogger(__name__)

ROUTING_KEYS = ("memory.#", "worker.#")
TASK_ROUTING_KEY = "task.#"
FIRST_PAUSE_SECONDS = 1.0
#: How long one wait for an event lasts; the loop looks whether to stop in between.
DRAIN_SECONDS = 1.0
#: A broker that is gone without a word is noticed after two of these (AMQP) ...
HEARTBEAT_SECONDS = 20.0
#: ... or after some of these (Redis).
HEALTH_SECONDS = 10.0
#: A connection that held for so long was a good one.
GOOD_SECONDS = 10.0
#: RabbitMQ removes a queue of ours that nobody has read for so long, and a message that nobody has
#: read for so long, as it does with Celery's own event queues.
QUEUE_EXPIRES_SECONDS = 60.0
MAX_TYPE_LENGTH = 100
MESSAGE_TTL_SECONDS = 30.0


class EventLoop:
    """Feeds a fleet from one broker, in a thread of its own."""

    def __init__(
        self,
        fleet: Fleet,
        settings: Broker,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._url = settings.events_url or settings.url or ""
        self._broker = settings.name
        self._source = f"broker/{settings.name}" if settings.name else "broker"
        self._monotonic = monotonic
        #: Since when the connection has stood, while there is one.
        self._connected: float | None = None
        self._logged_undecodable = False
        self._poller = Poller(
            "events",
            self._connect_and_consume,
            self._tell,
            interval=FIRST_PAUSE_SECONDS,
            patience=DRAIN_SECONDS + CONNECT_SECONDS,
        )

    def start(self) -> None:
        self._fleet.apply_source(self._source, up=False)
        self._poller.start()

    def stop(self) -> None:
        self._poller.stop()

    # --- the loop --------------------------------------------------------------------------------

    def _connect_and_consume(self) -> None:
        """Ends when it is told to stop, or by what the transport raises."""
        self._connected = None
        with connect(self._settings, self._url, heartbeat=HEARTBEAT_SECONDS) as connection:
            self._connected = self._monotonic()
            self._consume(connection)

    def _tell(self, attempt: Attempt) -> None:
        if attempt.error is None:
            return
        connected = self._connected
        self._poller.interval = self._pause(connected)
        self._fleet.apply_source(self._source, up=False)
        if connected is not None:
            self._fleet.apply_reconnect()
        logger.warning(
            "%s; trying again in %.0f s",
            explain(attempt.error, self._url),
            self._poller.interval,
        )

    def _pause(self, connected: float | None) -> float:
        """Before the next attempt, after a connection that has stood since then. What is sent
        meanwhile is lost: it grows only while no connection stands, and a good one is made anew at
        once."""
        stood = self._monotonic() - connected if connected is not None else 0.0
        if stood >= GOOD_SECONDS:
            return 0.0
        if stood >= FIRST_PAUSE_SECONDS:
            return FIRST_PAUSE_SECONDS
        longer = 2 * self._poller.interval or FIRST_PAUSE_SECONDS
        return min(self._settings.reconnect_max_seconds, longer)

    def _consume(self, connection: Connection) -> None:
        exchange = get_exchange(connection, name=self._settings.event_exchange)
        keys = [*ROUTING_KEYS, TASK_ROUTING_KEY] if self._settings.task_events else [*ROUTING_KEYS]
        queues = [self._queue(exchange, each) for each in subscriptions(connection, keys)]
        with Consumer(
            connection.default_channel,
            queues,
            on_message=self.on_message,
            on_decode_error=self.on_decode_error,
            no_ack=True,
        ):
            logger.info("consuming %s from %s", ", ".join(keys), safe_url(self._url))
            self._fleet.apply_source(self._source, up=True)
            check, interval = health_check(connection)
            checked = self._monotonic()
            while not self._poller.stopping:
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=DRAIN_SECONDS)
                if self._monotonic() - checked >= interval:
                    checked = self._monotonic()
                    check()

    @staticmethod
    def _queue(exchange: Any, keys: list[str]) -> Queue:
        return Queue(
            f"celery-memory-exporter.{kombu.uuid()}",
            exchange=exchange,
            bindings=[binding(exchange, routing_key=key) for key in keys],
            routing_key=keys[0],
            auto_delete=True,
            durable=False,
            exclusive=True,  # RabbitMQ 4 does without other transient queues
            expires=QUEUE_EXPIRES_SECONDS,
            message_ttl=MESSAGE_TTL_SECONDS,
        )

    # --- one message -----------------------------------------------------------------------------

    def on_message(self, message: Any) -> None:
        """Handles one message of the event exchange, whatever it holds; raises nothing."""
        size = len(message.body or b"")
        if size > MAX_MESSAGE_BYTES:
            self._fleet.reject_report("oversized")
            logger.warning(
                "a message of %d bytes is refused: an agent's report stays below %d",
                size,
                MAX_MESSAGE_BYTES,
            )
            return
        try:
            payload = message.decode()
        except Exception as error:  # kombu raises what its serializers raise
            self.on_decode_error(message, error)
            return
        for event in payload if isinstance(payload, list) else [payload]:
            try:
                self.on_event(event)
            except Exception:  # one event must not cost the connection, whatever it is
                self._fleet.reject_report("malformed")
                logger.exception("an event could not be handled")

    def on_decode_error(self, _: Any, error: Exception) -> None:
        """kombu calls it for a message that it cannot even unpack."""
        self._fleet.reject_report("undecodable")
        if not self._logged_undecodable:
            self._logged_undecodable = True
            logger.warning(
                "a message that is no event is refused (logged once): %s", str(error)[:200]
            )

    def on_event(self, event: object) -> None:
        kind = event.get("type") if isinstance(event, dict) else None
        if not isinstance(event, dict) or not isinstance(kind, str) or len(kind) > MAX_TYPE_LENGTH:
            self._fleet.reject_report("malformed")
            return
        timestamp = event.get("timestamp")
        sent = (
            timestamp
            if isinstance(timestamp, (int, float)) and abs(timestamp) <= MAX_NUMBER
            else None
        )
        self._fleet.apply_event(
            printable(kind.partition("-")[0]),
            None if sent is None else max(0.0, time.time() - sent),
        )
        if kind == EVENT_TYPE:
            self._on_report(event, sent)
            return
        hostname = event.get("hostname")
        if not isinstance(hostname, str) or not 1 <= len(hostname) <= MAX_NODENAME_LENGTH:
            return
        if kind.startswith("task-"):
            event["hostname"] = printable(hostname)
            self._fleet.apply_task_event(kind, event, self._monotonic(), self._broker)
        elif kind.startswith("worker-"):
            self._on_worker_event(event, printable(hostname), kind)

    def _on_report(self, event: dict[str, Any], sent: float | None) -> None:
        try:
            report = decode(event.get("report"))
        except DecodeError as error:
            self._fleet.reject_report(error.reason)
            logger.warning("a report from %.120r is refused: %s", event.get("hostname"), error)
            return
        age = None if sent is None else sent - report.instance.started_at
        self._fleet.apply_report(report, self._monotonic(), self._broker, age=age)

    def _on_worker_event(self, event: dict[str, Any], nodename: str, kind: str) -> None:
        active, processed = count_of(event.get("active")), count_of(event.get("processed"))
        self._fleet.apply_worker_event(
            nodename, kind, active, self._monotonic(), processed=processed, broker=self._broker
        )


def health_check(connection: Connection) -> tuple[Callable[[], Any], float]:
    """What notices a broker that is gone without a word, and how often it is to be called."""
    if connection.supports_heartbeats:
        return connection.heartbeat_check, DRAIN_SECONDS
    # kombu itself calls it in a worker's event loop only. It subscribes anew when answers stay out.
    cycle = getattr(connection.transport, "cycle", None)
    return getattr(cycle, "maybe_check_subclient_health", lambda: None), HEALTH_SECONDS


def subscriptions(connection: Connection, keys: list[str]) -> list[list[str]]:
    """The routing keys of each of our queues. One queue has all of them, so that events stay in
    order; in Redis a queue has one key, and the one connection keeps events in order."""
    return [[key] for key in keys] if connection.transport.driver_type == "redis" else [keys]
