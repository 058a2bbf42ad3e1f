"""The page on values of ours: the real server, fleet and history behind it."""

from __future__ import annotations

import dataclasses
from typing import Any

from prometheus_client import CollectorRegistry

from celery_memory_exporter.diagnosis.told import Told
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.web.rss_history import FIRST_STEP_SECONDS, RssHistory
from celery_memory_exporter.web.server import Application, HttpServer, bind
from tests import samples
from tests.diagnosis.test_judge import evidence_of

MIB = samples.MIB


class Site:
    def __init__(self) -> None:
        self.fleet = Fleet(Rules(samples.BOOT, Limits()))
        self.history = RssHistory()
        self.now = 0.0
        listener = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        self.broken = False
        self.server = HttpServer(
            Application(
                CollectorRegistry(),
                self.snapshot,
                dict,
                self.history,
                Told(lambda: 1_700_000_000.0),
            ),
            listener,
        )

    def snapshot(self) -> Snapshot:
        assert not self.broken
        return self.fleet.snapshot(self.now)

    def tick(self) -> None:
        self.now += FIRST_STEP_SECONDS
        self.history.add(self.fleet.snapshot(self.now), self.now)

    def report(self, nodename: str, *, rss: int = 50 * MIB, **changes: Any) -> None:
        """The agent's next report; of a worker that leaks, unless ``changes`` say otherwise."""
        number = sum(nodename.encode())
        report = samples.report(
            worker=nodename,
            instance=samples.instance(boot_id="elsewhere", started_at=float(number)),
            sequence=round(self.now / FIRST_STEP_SECONDS) + 1,
            processes=[samples.process("main", 100), samples.process("0", 101, rss_bytes=rss)],
        )
        self.fleet.apply_report(dataclasses.replace(report, **changes), self.now)


def fine(name: str = "shop.fine") -> Any:
    return samples.task(
        name, growth_bytes=0.0, release_bytes=0.0, evidence=evidence_of(lambda _: 0.0)
    )
