"""A worker and what is known of it, by plain values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats.profile import WIDTH, Column, ProfileRow
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.stats.tally import Column as Total
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.agent.worker.ledger import Ledger
from celery_memory_exporter.agent.worker.records import ProfileRecord, TotalsRecord
from celery_memory_exporter.agent.worker.reporting import Sources
from celery_memory_exporter.agent.worker.requests import RequestCounter
from celery_memory_exporter.agent.worker.shares import Shares


def plain_worker(pool: str = "prefork", **changes: Any) -> Any:
    """As far as the agent asks for it. ``children`` are the pool's processes."""
    pool_class = type("TaskPool", (), {"__module__": f"celery.concurrency.{pool}"})
    children = changes.pop("children", [])
    values = {
        "hostname": "celery@web1",
        "concurrency": 4,
        "max_memory_per_child": None,
        "pool_cls": pool_class,
        "pool": SimpleNamespace(_pool=SimpleNamespace(_pool=children), num_processes=None),
        "app": SimpleNamespace(tasks={}),
        "exitcode": None,
    }
    return SimpleNamespace(**{**values, **changes})


def totals(pid: int, runs: int, key: TaskKey = ("shop.t", "q")) -> TotalsRecord:
    """Of a task type with so many runs, all of which succeeded in half a second."""
    row = TaskTotals()
    row.figures[0], row.figures[Total.SECONDS] = runs, runs / 2
    return TotalsRecord(pid, key, row.to_bytes())


def profile(pid: int, audits: int, key: TaskKey = ("shop.t", "q")) -> ProfileRecord:
    """Of a task type with so many audited runs after the first, each of which left a block."""
    row = ProfileRow()
    start = WIDTH
    for column in (Column.RUNS, Column.AUDITED, Column.BLOCKS):
        row.figures[start + column] = audits
    return ProfileRecord(pid, key, row.to_bytes(), replaces=False)


def sources(ledger: Ledger, settings: Settings | None = None, **worker: Any) -> Sources:
    """Of a worker that has received nothing yet."""
    settings = settings or Settings()
    requests = RequestCounter(Guard(), settings)
    requests.stop()  # of signals: the process has one worker in each test
    return Sources(
        worker=plain_worker(**worker),
        pool="prefork",
        settings=settings,
        ledger=ledger,
        shares=Shares(Readings(), None),
        requests=requests,
        child_memory_limit_bytes=None,
    )
