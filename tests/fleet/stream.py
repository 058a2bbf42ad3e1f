"""Task events by short names, for the tests of what they add up to."""

from __future__ import annotations

from typing import Any

from celery_memory_exporter.common.report import Traffic
from celery_memory_exporter.common.traffic import Counts
from celery_memory_exporter.fleet.task_events import TaskEvents
from celery_memory_exporter.fleet.worker_tasks import WorkerTasks
from tests import samples


def a_worker() -> WorkerTasks:
    return WorkerTasks(Counts(max_tasks=200))


class Stream:
    """Events of two workers, by short names."""

    def __init__(self, max_in_flight: int = 100) -> None:
        self.events = TaskEvents(tasks_in_flight=max_in_flight, default_name="celery")
        self.workers = {"a": a_worker(), "b": a_worker()}
        self.now = 0.0

    def tell(self, kinds: str, worker: str = "a", **changes: Any) -> Stream:
        for each in kinds.split():
            event = samples.task_event(f"task-{each}", **changes)
            if each == "sent":
                self.events.send(event)
            else:
                self.events.apply(self.workers[worker], f"task-{each}", event, None, self.now)
        return self

    def row(self, worker: str = "a") -> Traffic:
        (row,) = self.workers[worker].counts.reports()
        return row

    def ignored(self) -> dict[str, int]:
        return {reason: count for reason, count in self.events.ignored.items() if count}


def beats(worker: WorkerTasks, *told: tuple[int, int]) -> int | None:
    """Heartbeats with the worker's own count, each after so many events."""
    for processed, events in told:
        for _ in range(events):
            worker.hear("task-started")
        worker.beat(processed)
    return worker.lost
