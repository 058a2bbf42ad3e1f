"""How the fleet judges what it is told: the settings that it follows, by their names in the
configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass

from celery_memory_exporter.common.traffic import QUEUE_WAIT_SECONDS, RUNTIME_SECONDS
from celery_memory_exporter.fleet.limits import Limits


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the fleet."""

    #: This machine's, to tell its own workers' reports from other machines'.
    boot_id: str
    limits: Limits
    expire_after_seconds: float = 600.0
    heartbeat_timeout_seconds: float = 300.0
    #: ``buckets``: upper bounds of the histograms of workers without an agent.
    runtime_seconds: tuple[float, ...] = tuple(RUNTIME_SECONDS)
    queue_wait_seconds: tuple[float, ...] = tuple(QUEUE_WAIT_SECONDS)
    #: ``queues.default_name``: the queue of a task that nothing tells the queue of.
    default_name: str = "celery"
    #: ``labels.senders``: whether senders' hostnames are told apart.
    senders: bool = False
    #: Nodenames of workers that are shown as one, and the name that they are shown by.
    worker_groups: tuple[tuple[re.Pattern[str], str], ...] = ()
