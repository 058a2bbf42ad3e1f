"""A fleet, and what it shows: what more than one of these tests needs."""

from __future__ import annotations

from typing import Any

from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import WorkerView
from tests import samples


def make_fleet(**limits: Any) -> Fleet:
    return Fleet(Rules(samples.BOOT, Limits(**limits)))


def only(fleet: Fleet, now: float = 0.0) -> WorkerView:
    (worker,) = fleet.snapshot(now).workers
    return worker


def rss(worker: WorkerView) -> dict[str, int | None]:
    return {each.figures.process: each.figures.rss_bytes for each in worker.processes}


def slots(worker: WorkerView) -> dict[int, str]:
    """Each process's name by its pid."""
    return {each.figures.pid: each.figures.process for each in worker.processes}


def run_by_events(
    fleet: Fleet, worker: str = "celery@bare", uuid: str = "one", now: float = 0.0, broker: str = ""
) -> None:
    for kind in ("task-received", "task-started", "task-succeeded"):
        fleet.apply_task_event(
            kind, samples.task_event(kind, hostname=worker, uuid=uuid), now, broker
        )


def succeeded(worker: WorkerView) -> int:
    return sum(row.succeeded for row in worker.traffic.rows) if worker.traffic is not None else 0
