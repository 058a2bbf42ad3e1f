"""Asks workers without an agent, by Celery's own remote control, what they consume and with how
many processes.

* In a thread of its own, because an answer may take as long as it likes to not come.
* Only those are asked that have no agent, each again after ``interval`` seconds.
* kombu's mailbox directly: Celery's ``inspect`` publishes over a second connection, made from an
  application's settings.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from kombu import Connection
from kombu.pidbox import Mailbox

from celery_memory_exporter.common.codec import count_of
from celery_memory_exporter.common.names import pool_name, printable
from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.fleet.facts import WorkerFacts
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.sources.broker import CONNECT_SECONDS, connect, explain
from celery_memory_exporter.sources.poller import Attempt, Poller

logger = logging.getLogger(__name__)

#: How long answers to one question are waited for. When all have answered, the wait ends.
ANSWER_SECONDS = 2.0
#: How often it is looked whether somebody has to be asked.
LOOK_SECONDS = 5.0
MAX_NAME_LENGTH = 255
MAX_QUEUES = 1000
MAX_PROCESSES = 100_000


class Inspector:
    """Feeds a fleet with what one broker's workers answer, in a thread of its own."""

    def __init__(
        self,
        fleet: Fleet,
        settings: Broker,
        *,
        interval: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._interval = interval
        self._monotonic = monotonic
        #: When a worker was last asked; of those that are still without an agent.
        self._asked: dict[str, float] = {}
        #: Whether the last question failed. ``Attempt.again`` is of the last look, and most looks
        #: find nobody to ask, which says nothing about the broker.
        self._failing = False
        self._poller = Poller(
            "inspection",
            self._step,
            self._tell,
            interval=min(LOOK_SECONDS, interval),
            patience=CONNECT_SECONDS,
            monotonic=monotonic,
        )

    def start(self) -> None:
        """Not at once: agents are given the time to tell of themselves."""
        self._poller.start(after=self._poller.interval)

    def stop(self) -> None:
        self._poller.stop()

    def ask(self) -> None:
        """Asks those that are due, if any."""
        self._poller.poll()

    def _step(self) -> None:
        due = self._due(self._monotonic())
        if due:
            self._ask(due)
            self._failing = False

    def _due(self, now: float) -> list[str]:
        nodenames = self._fleet.without_agent(self._settings.name, now)
        self._asked = {
            nodename: asked for nodename, asked in self._asked.items() if nodename in nodenames
        }
        due = sorted(
            name
            for name in nodenames
            if now - self._asked.get(name, float("-inf")) >= self._interval
        )
        self._asked.update(dict.fromkeys(due, now))
        return due

    def _ask(self, nodenames: list[str]) -> None:
        with connect(self._settings, self._settings.url or "") as connection:
            if connection.supports_exchange_type("fanout"):
                facts = inspect(connection, self._settings.control_exchange, nodenames)
                self._fleet.apply_inspection(self._settings.name, facts, self._monotonic())
                return
        self._poller.finish()
        logger.info(
            "workers without an agent cannot be asked what they consume: the broker has no fanout"
        )

    def _tell(self, attempt: Attempt) -> None:
        if attempt.error is not None:
            if not self._failing:
                logger.warning(
                    "workers cannot be asked: %s", explain(attempt.error, self._settings.url or "")
                )
            self._failing = True


def inspect(connection: Connection, exchange: str, nodenames: list[str]) -> dict[str, WorkerFacts]:
    """The facts of those workers that answered both questions in time, and well."""
    mailbox = Mailbox(exchange, type="fanout", accept=["json"], serializer="json")(connection)
    stats, queues = (
        by_nodename(mailbox.call(nodenames, question, timeout=ANSWER_SECONDS), nodenames)
        for question in ("stats", "active_queues")
    )
    answered = {
        nodename: facts_of(stats[nodename], queues[nodename])
        for nodename in nodenames
        if nodename in stats and nodename in queues
    }
    return {nodename: facts for nodename, facts in answered.items() if facts is not None}


def by_nodename(replies: object, nodenames: Iterable[str]) -> dict[str, Any]:
    """The replies of those that were asked."""
    mappings = (
        [reply for reply in replies if isinstance(reply, dict)] if isinstance(replies, list) else []
    )
    return {
        nodename: reply[nodename]
        for nodename in nodenames
        for reply in mappings
        if nodename in reply
    }


def facts_of(stats: object, queues: object) -> WorkerFacts | None:
    """What a worker says of itself by its answers to ``stats`` and ``active_queues``; ``None``
    where they are not what a worker answers."""
    told = stats.get("pool") if isinstance(stats, dict) else None
    if not isinstance(told, dict) or not isinstance(queues, list):
        return None
    pool = pool_of(told.get("implementation"))
    processes = told.get("processes")
    # A solo worker lists itself.
    count = len(processes) if pool == "prefork" and isinstance(processes, list) else 0
    return WorkerFacts(
        pool,
        count_of(told.get("max-concurrency"), MAX_PROCESSES),
        min(count, MAX_PROCESSES),
        queue_names(queues),
    )


def pool_of(implementation: object) -> str | None:
    """As the agent names pools: ``celery.concurrency.thread:TaskPool`` is ``threads``."""
    if not isinstance(implementation, str) or not 0 < len(implementation) <= MAX_NAME_LENGTH:
        return None
    return printable(pool_name(implementation.partition(":")[0]))


def queue_names(queues: list[Any]) -> tuple[str, ...]:
    names = [queue.get("name") for queue in queues[:MAX_QUEUES] if isinstance(queue, dict)]
    return tuple(
        printable(name)
        for name in names
        if isinstance(name, str) and 0 < len(name) <= MAX_NAME_LENGTH
    )
