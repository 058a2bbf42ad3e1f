"""Snapshot -> metric families, made anew for each scrape: no metric object holds state, so nothing
gone is ever shown.

What is unknown is absent. Counters and histograms are what the workers tell, cumulative since they
started; a restarted worker's start at zero again, which ``rate()`` understands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from celery_memory_exporter.diagnosis.judge import diagnose
from celery_memory_exporter.diagnosis.told import Told
from celery_memory_exporter.diagnosis.verdict import Diagnosis
from celery_memory_exporter.fleet.snapshot import GroupView, QueueView, SentView, Snapshot
from celery_memory_exporter.metrics.catalogue import FAMILIES
from celery_memory_exporter.metrics.exporter_samples import Build, add_exporter
from celery_memory_exporter.metrics.samples import Samples, empty_metric
from celery_memory_exporter.metrics.worker_samples import add_group


class FleetCollector(Collector):
    """Shows what ``snapshot`` answers, for a prometheus_client registry. ``told`` is what was said
    of its workers before."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        build: Build | None = None,
        told: Told | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._told = told
        self._build = build or Build()

    def describe(self) -> Iterable[Metric]:
        """All families, without a scrape: what makes ``name[]`` find them."""
        return [empty_metric(family) for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot()
        samples = Samples()
        for broker, part in by_broker(snapshot):
            samples.broker = broker if snapshot.several_brokers else None
            add_broker(samples, part, diagnose(part.workers, self._told))
        samples.broker = None
        add_exporter(samples, snapshot, self._build)
        return samples.metrics()


def by_broker(snapshot: Snapshot) -> Iterator[tuple[str, Snapshot]]:
    """What there is at each broker; workers that only the process table shows are at none."""
    parts: tuple[tuple[GroupView | QueueView | SentView, ...], ...] = (
        snapshot.groups,
        snapshot.queues,
        snapshot.sent,
    )
    for broker in sorted({each.broker for part in parts for each in part}):
        yield (
            broker,
            dataclasses.replace(
                snapshot,
                groups=tuple(each for each in snapshot.groups if each.broker == broker),
                queues=tuple(each for each in snapshot.queues if each.broker == broker),
                sent=tuple(each for each in snapshot.sent if each.broker == broker),
            ),
        )


def add_broker(samples: Samples, snapshot: Snapshot, diagnosis: Diagnosis) -> None:
    for group in snapshot.groups:
        samples.together = group.kept is not None
        add_group(samples, group)
    samples.together = True  # members of a group may have the same suspects
    add_diagnosis(samples, diagnosis)
    samples.together = False
    for sent in snapshot.sent:
        samples.add("celery_task_sent_total", (sent.name, sent.hostname, sent.queue), sent.count)
    for queue in snapshot.queues:
        add_queue(samples, queue)


def add_queue(samples: Samples, queue: QueueView) -> None:
    reading = queue.reading
    labels = (reading.name,)
    samples.add("celery_queue_length", labels, reading.length)
    for priority, length in sorted(reading.by_priority.items()):
        samples.add("celery_queue_length_by_priority", (reading.name, str(priority)), length)
    samples.add("celery_queue_oldest_task_age_seconds", labels, reading.oldest_seconds)
    samples.add("celery_active_consumer_count", labels, reading.consumers)
    samples.add("celery_active_worker_count", labels, queue.workers)
    samples.add("celery_active_process_count", labels, queue.processes)


def add_diagnosis(samples: Samples, diagnosis: Diagnosis) -> None:
    for suspect in diagnosis.suspects:
        labels = (suspect.worker, suspect.task or "", suspect.growth_class)
        samples.add("celery_leak_suspect", (*labels, suspect.holder), 1)
        samples.add("celery_leak_bytes_per_run", labels, suspect.retained_bytes_per_run)
        samples.add("celery_leak_bytes_per_hour", labels, suspect.retained_bytes_per_hour)
