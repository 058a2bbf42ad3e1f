"""What the main process makes once, before its first fork, so that no child has to."""

from __future__ import annotations

from dataclasses import dataclass

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter.books import Biases
from celery_memory_exporter.agent.meter.calibration import measure_biases
from celery_memory_exporter.agent.meter.conditions import Conditions
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.worker.channel import Channel


@dataclass(frozen=True, slots=True)
class Inheritance:
    """Of the children of one worker."""

    channel: Channel
    conditions: Conditions
    #: The main process's own.
    readings: Readings
    #: What a run of nothing reads as: the same in a child, and to measure it takes 20 ms.
    biases: Biases

    @staticmethod
    def of(
        channel: Channel, settings: Settings, readings: Readings, memory_limit_bytes: int | None
    ) -> Inheritance:
        """``memory_limit_bytes``: above it the pool recycles a child."""
        conditions = Conditions(
            settings.max_tasks,
            audits=settings.audits,
            pickles_failures=True,
            peak_limit_bytes=memory_limit_bytes,
        )
        return Inheritance(
            channel, conditions, readings, measure_biases(Guard(), readings, conditions)
        )
