"""The exporter as one object: sources, fleet, exposition and server, wired in the order that data
flows."""

from __future__ import annotations

import logging
import socket
import time

from prometheus_client import CollectorRegistry, ProcessCollector

from celery_memory_exporter.common import procfs
from celery_memory_exporter.config.settings import Config
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.metrics import exposition
from celery_memory_exporter.metrics.collector import FleetCollector
from celery_memory_exporter.sources.events import EventLoop
from celery_memory_exporter.sources.process_poller import ProcessPoller
from celery_memory_exporter.sources.queues import QueuePoller
from celery_memory_exporter.web.rss_history import HistoryKeeper, RssHistory
from celery_memory_exporter.web.server import Application, HttpServer

logger = logging.getLogger(__name__)


class Exporter:
    """``start`` and ``stop`` once each. Without a listening socket there is no server."""

    def __init__(self, settings: Config, listener: socket.socket | None = None) -> None:
        brokers = settings.all_brokers()
        self._fleet = Fleet(rules_of(settings), {broker.name: broker.queues for broker in brokers})
        self._registry = CollectorRegistry()
        self._registry.register(FleetCollector(self.snapshot))
        ProcessCollector(registry=self._registry)
        self._parts: list[ProcessPoller | EventLoop | QueuePoller | HistoryKeeper | HttpServer] = []
        if settings.processes.enabled:
            self._parts.append(self._process_poller(settings))
        for broker in brokers:
            self._parts.append(EventLoop(self._fleet, broker))
            if settings.queues.enabled:
                self._parts.append(QueuePoller(self._fleet, broker, settings.queues))
        if not brokers:
            logger.warning(
                "no broker is configured: only workers on this machine are seen, by their "
                "processes. Set broker.url (--broker-url, CELERY_MEMORY_BROKER_URL) to receive the "
                "agents' reports"
            )
        if listener is not None:
            history = RssHistory()
            self._parts.append(HistoryKeeper(history, self.snapshot))
            self._parts.append(
                HttpServer(
                    Application(self._registry, self.snapshot, self.unready, history), listener
                )
            )

    def start(self) -> None:
        for part in self._parts:
            part.start()

    def stop(self) -> None:
        for part in reversed(self._parts):
            part.stop()

    def snapshot(self) -> Snapshot:
        return self._fleet.snapshot(time.monotonic())

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

    def _process_poller(self, settings: Config) -> ProcessPoller:
        return ProcessPoller(
            self._fleet,
            interval=settings.processes.interval_seconds,
            shared_interval=settings.processes.shared_memory_interval_seconds,
            shared_max_rss=settings.processes.shared_memory_max_rss_bytes,
        )


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
