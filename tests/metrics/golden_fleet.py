"""One fixed fleet that has something of every family.

Three workers: one has the agent and is in the process table, one is in the table alone, one tells
of itself and is in the past. And an exporter that has seen things.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from celery_memory_exporter.fleet.facts import QueueReading, SharedMemory, WorkerFacts
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.metrics.collector import FleetCollector
from celery_memory_exporter.metrics.exporter_samples import Build
from tests import samples

#: So that the exposition does not differ between machines.
BUILD = Build("0.1.0", "3.11.7", "5.7.0")


def fixed_fleet() -> Snapshot:
    fleet = Fleet(Rules(samples.BOOT, Limits(tasks_per_worker=2)))
    tell_reports(fleet)
    tell_events(fleet)
    tell_queues(fleet)
    tell_readings_of_the_table(fleet)
    tell_of_the_exporter(fleet)
    return fleet.snapshot(101.0)


def registry() -> CollectorRegistry:
    result = CollectorRegistry()
    result.register(FleetCollector(fixed_fleet, BUILD))
    return result


def tell_reports(fleet: Fleet) -> None:
    past = samples.report(worker="celery@past", instance=samples.instance(boot_id="other"))
    fleet.apply_report(past, 0.0)
    tasks = [
        samples.task(),
        samples.task(queue="slow"),
        samples.task('odd"name\n\\'),
        samples.task("beyond the cap"),
    ]
    fleet.apply_report(samples.report(tasks=tasks), 100.0)
    fleet.apply_report(samples.report(), 100.0)
    fleet.reject_report("undecodable")
    fleet.apply_shared_memory(
        {samples.seen(101).identity: SharedMemory(30 * samples.MIB, 20 * samples.MIB)}
    )


def tell_events(fleet: Fleet) -> None:
    fleet.apply_worker_event("celery@bare", "worker-heartbeat", 1, 100.0, processed=10)
    fleet.apply_inspection("", {"celery@bare": WorkerFacts("prefork", 1, 1, ("slow",))}, 100.0)
    for kind in ("sent", "received", "started", "retried", "received", "started", "failed"):
        fleet.apply_task_event(f"task-{kind}", samples.task_event(f"task-{kind}"), 100.0)
    for kind in ("received", "started"):
        fleet.apply_task_event(f"task-{kind}", samples.task_event(f"task-{kind}"), 100.0)
    unknown = samples.task_event("task-succeeded", uuid="not known")
    fleet.apply_task_event("task-succeeded", unknown, 100.0)
    for processed in (12, 13, 13):  # one more was started than told
        fleet.apply_worker_event("celery@bare", "worker-heartbeat", 1, 100.0, processed=processed)


def tell_queues(fleet: Fleet) -> None:
    fleet.apply_queues("", [QueueReading("slow", 7, {0: 5, 3: 2}, 1, 12.5)], 100.0)


def tell_readings_of_the_table(fleet: Fleet) -> None:
    """A run more adds 1 MiB, and every other reading none."""
    for number in range(20):
        received = samples.task_event("task-received", uuid=f"{number}")
        fleet.apply_task_event("task-received", received, 100.0)
        if number % 3:
            succeeded = samples.task_event("task-succeeded", uuid=f"{number}")
            fleet.apply_task_event("task-succeeded", succeeded, 100.0)
        table = samples.table("celery@bare", 300, (301,), rss=(number - number // 3) * samples.MIB)
        fleet.apply_processes([samples.table(), table], 100.0)


def tell_of_the_exporter(fleet: Fleet) -> None:
    fleet.apply_event("worker", 0.25)
    fleet.apply_event("memory", 0.5)
    fleet.apply_source("broker", up=True)
    denied = {"processes": False, "shared_memory": True}
    fleet.apply_source("processes", up=True, duration=0.0125, denied=denied)
    fleet.apply_reconnect()
