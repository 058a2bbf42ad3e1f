"""The exporter as one object: sources, fleet, exposition and server, wired in the order that data
flows."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector

from celery_memory_exporter.common import procfs
from celery_memory_exporter.config.settings import Broker, Config, Processes, Queues
from celery_memory_exporter.diagnosis.judge import diagnose
from celery_memory_exporter.diagnosis.told import Told
from celery_memory_exporter.diagnosis.verdict import Diagnosis
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.metrics import exposition
from celery_memory_exporter.metrics.collector import FleetCollector
from celery_memory_exporter.sources.events import EventLoop
from celery_memory_exporter.sources.inspect import Inspector
from celery_memory_exporter.sources.process_poller import ProcessPoller
from celery_memory_exporter.sources.queues import QueuePoller
from celery_memory_exporter.web.rss_history import HistoryKeeper, RssHistory
from celery_memory_exporter.web.server import Application, HttpServer

logger = logging.getLogger(__name__)

NO_BROKER = (
    "no broker is configured: only workers on this machine are seen, by their processes. Set "
    "broker.url (--broker-url, CELERY_MEMORY_BROKER_URL) to receive the agents' reports"
)


class Part(Protocol):
    """What runs in a thread of its own."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Exporter:
    """``start`` and ``stop`` once each. Without a listening socket there is no server."""

    def __init__(self, settings: Config, listener: socket.socket | None = None) -> None:
        brokers = settings.all_brokers()
        if not brokers:
            logger.warning(NO_BROKER)
        queues = {broker.name: broker.queues for broker in brokers}
        self._fleet = Fleet(rules_of(settings), queues, began=time.monotonic())
        self._told = Told(time.time)
        self._registry = CollectorRegistry()
        self._registry.register(FleetCollector(self.snapshot, told=self._told))
        ProcessCollector(registry=self._registry)
        self._parts: list[Part] = [
            *self._process_table(settings.processes),
            *(part for broker in brokers for part in self._broker(broker, settings.queues)),
            *self._web(listener),
        ]

    def _process_table(self, processes: Processes) -> Iterator[Part]:
        if processes.enabled:
            yield ProcessPoller(
                self._fleet,
                interval=processes.interval_seconds,
                shared_interval=processes.shared_memory_interval_seconds,
                shared_max_rss=processes.shared_memory_max_rss_bytes,
            )

    def _broker(self, broker: Broker, queues: Queues) -> Iterator[Part]:
        yield EventLoop(self._fleet, broker)
        if queues.enabled:
            yield QueuePoller(self._fleet, broker, queues)
            yield Inspector(self._fleet, broker, interval=queues.inspect_interval_seconds)

    def _web(self, listener: socket.socket | None) -> Iterator[Part]:
        if listener is not None:
            history = RssHistory()
            yield HistoryKeeper(history, self.snapshot)
            show = Application(self._registry, self.snapshot, self.unready, history, self._told)
            yield HttpServer(show, listener)

    def start(self) -> None:
        for part in self._parts:
            part.start()

    def stop(self) -> None:
        for part in reversed(self._parts):
            part.stop()

    def snapshot(self) -> Snapshot:
        return self._fleet.snapshot(time.monotonic())

    def diagnosis(self) -> Diagnosis:
        """Who leaks, as page and metrics tell it."""
        return diagnose(self.snapshot().workers, self._told)

    def exposition(self) -> str:
        """What ``/metrics`` answers now, in the text format."""
        return exposition.encode(self._registry, accept="")[0].decode()

    def unready(self) -> dict[str, str]:
        """Sources that do not work now, each with what is the matter."""
        down = [name for name, view in self.snapshot().sources.items() if not view.up]
        return {
            name: "not connected" if name.startswith("broker") else "cannot be read"
            for name in down
        }


def rules_of(settings: Config) -> Rules:
    return Rules(
        boot_id=procfs.boot_id(),
        limits=settings.limits,
        expire_after_seconds=settings.expire_after_seconds,
        heartbeat_timeout_seconds=settings.heartbeat_timeout_seconds,
        runtime_seconds=settings.buckets.runtime_seconds,
        queue_wait_seconds=settings.buckets.queue_wait_seconds,
        default_name=settings.queues.default_name,
        senders=settings.labels.senders,
        worker_groups=tuple((group.match, group.name) for group in settings.worker_groups),
    )
