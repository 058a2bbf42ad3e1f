"""Workers that are killed, or end while their broker is away: what they counted is told, once."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.integration.client import Load
from tests.integration.exporter import Exporter
from tests.integration.outages import kill, restart_broker, restart_killed
from tests.integration.stage import Stage
from tests.integration.waiting import at_least, wait_for
from tests.integration.worker import Worker, name_of

pytestmark = pytest.mark.integration

KILLS = 6
BROKER_KILLS = int(os.environ.get("BROKER_KILLS", "2"))
PER_SECOND = 40
CHILDREN = 2
SUPERVISOR_SECONDS = 5.0
#: Whose counters do not fall when the worker begins anew.
GROUP = "all"
LOST = "celery_task_lost_total"


@pytest.fixture(autouse=True)
def _temporary(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody else's workers leave anything."""
    monkeypatch.setenv("TMPDIR", str(stage.folder))


@pytest.fixture
def exporter(stage: Stage) -> Exporter:
    return stage.configured(
        broker={"url": stage.broker.url}, worker_groups=[{"match": ".*", "name": GROUP}]
    )


def succeeded(exporter: Exporter) -> float:
    labels = {"worker": GROUP, "name": name_of("write_down")}
    return exporter.value("celery_task_succeeded_total", **labels) or 0.0


def lines(ledger: Path) -> list[str]:
    return ledger.read_text().splitlines() if ledger.exists() else []


@contextlib.contextmanager
def load(stage: Stage, worker: Worker, ledger: Path) -> Iterator[None]:
    numbers = itertools.count()

    def send(app: Celery, producer: Any) -> None:
        to = {"queue": worker.queue, "producer": producer, "retry": False}
        app.send_task(name_of("write_down"), (str(ledger), next(numbers)), **to)

    with Load(stage, send, PER_SECOND):
        yield


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_what_killed_workers_counted_is_told_once(
    stage: Stage, exporter: Exporter, pool: str
) -> None:
    # With an interval that no life reaches: whatever is told of it, the next worker tells.
    worker = stage.worker("-c", "2", "-P", pool, CELERY_MEMORY_INTERVAL_SECONDS="60")
    ledger = stage.folder / "ledger"
    with load(stage, worker, ledger):
        for _ in range(KILLS):
            before = len(lines(ledger))
            wait_for(lambda: len(lines(ledger)), "a life's work", at_least(before + 80))
            restart_killed(worker)
    worker.stop()
    finished = len(lines(ledger))
    # At the moment of a kill a child may have written and not come back from its task yet.
    told = wait_for(lambda: succeeded(exporter), "all runs", at_least(finished - KILLS))
    assert finished - KILLS <= told <= finished
    assert (exporter.value(LOST, worker=GROUP) or 0.0) <= 2 * KILLS


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_what_workers_counted_while_their_broker_was_killed_is_told_once(
    stage: Stage, exporter: Exporter
) -> None:
    exporter.wait_until_ready()
    # What is told twice, an interval apart, may meet an exporter that is just connecting once.
    worker = stage.worker("-c", str(CHILDREN), CELERY_MEMORY_INTERVAL_SECONDS="5")
    ledger = stage.folder / "ledger"
    told, deaths = [], 0
    with load(stage, worker, ledger):
        for _ in range(BROKER_KILLS):
            before = len(lines(ledger))
            wait_for(lambda: len(lines(ledger)), "some work", at_least(before + 80))
            deaths += len(restart_broker(stage.broker, exporter, worker, end=kill))
            told.append(succeeded(exporter))
    # As it works on: a task whose result comes when the worker stops is run once more, by Celery.
    # A worker that died of its broker's may have had a run whose end it did not live to hear of,
    # and one that lived does not want to hear of those that no child had accepted yet.
    unheard = deaths + CHILDREN * BROKER_KILLS
    missing = wait_for(
        lambda: len(lines(ledger)) - succeeded(exporter), "all runs", lambda seen: seen <= unheard
    )
    assert missing >= 0, "no run counts twice"
    told.append(succeeded(exporter))
    assert told == sorted(told), "nothing goes backwards"
    assert not exporter.value("celery_task_failed_total", worker=GROUP)
    assert (exporter.value(LOST, worker=GROUP) or 0.0) <= 2 * deaths


def end_as_a_supervisor_does(worker: Worker) -> None:
    """Celery's own heartbeat may wait for the broker for ever, and the worker with it."""
    assert worker.process is not None
    worker.begin_to_stop()
    try:
        worker.process.wait(SUPERVISOR_SECONDS)
    except subprocess.TimeoutExpired:
        worker.process.kill()
        worker.process.wait()


def test_a_worker_that_ends_while_its_broker_is_away_is_told_by_the_next_one(
    stage: Stage, exporter: Exporter
) -> None:
    exporter.wait_until_ready()
    worker = stage.worker("-c", "2", CELERY_MEMORY_INTERVAL_SECONDS="60")
    # Of a worker that it never heard of, a group takes what was counted before as old.
    reports = "celery_memory_exporter_reports_received_total"
    wait_for(lambda: exporter.value(reports) or 0.0, "its first report", at_least(1))
    ledger = stage.folder / "ledger"
    with load(stage, worker, ledger):
        wait_for(lambda: len(lines(ledger)), "some work", at_least(50))
    stage.broker.stop()
    end_as_a_supervisor_does(worker)
    finished = len(lines(ledger))
    stage.broker.start()
    exporter.wait_until_ready()
    assert succeeded(exporter) < finished
    worker.start()
    worker.stop()
    finished = len(lines(ledger))
    wait_for(lambda: succeeded(exporter), "all runs", at_least(finished))
    assert succeeded(exporter) == finished


def test_a_worker_that_ends_well_leaves_nothing(stage: Stage, exporter: Exporter) -> None:
    folder = stage.folder / "state"
    folder.mkdir()
    worker = stage.worker("-c", "2", CELERY_MEMORY_STATE_DIR=str(folder))
    (private,) = folder.iterdir()
    names = {path.suffix for path in private.iterdir()}
    assert (private.stat().st_mode & 0o777, names) == (0o700, {".map", ".json"})
    worker.stop()
    assert list(private.iterdir()) == []
