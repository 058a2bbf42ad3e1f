"""What became of each of a thousand tasks, in every pool: by the agent's reports, by events, and by
both at once.

The expected figures are Celery's own events', which a plain receiver counts in the same run where
the worker sends them. ``OUTCOMES=1000`` makes it a thousand of each in all pools; without it there
are fewer.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import pytest

from tests.integration.exporter import Exporter
from tests.integration.figures import no_agent_trouble, wait_for_value
from tests.integration.outcomes import (
    LAST,
    TELLING,
    Client,
    Figures,
    Witness,
    expected,
    shown,
    without_last,
)
from tests.integration.stage import Stage
from tests.integration.waiting import equals, nothing, wait_for
from tests.integration.worker import name_of

pytestmark = pytest.mark.integration

FEW, MANY = 50, 300
TIMES = os.environ.get("OUTCOMES")
ONE_RUN = (LAST, "succeeded", "")


def exporter_of(stage: Stage) -> Exporter:
    return stage.configured(
        broker={"url": stage.broker.url},
        queues={"interval_seconds": 1, "inspect_interval_seconds": 5},
    )


def wait_for_figures(exporter: Exporter, client: Client, wanted: Figures) -> None:
    """All that is wanted, and then, when a task that was sent last is told of, nothing more."""
    worker = client.worker

    def short() -> dict[tuple[str, str, str], tuple[float, float]]:
        seen = shown(exporter, worker)
        pairs = {key: (seen.get(key, 0.0), value) for key, value in wanted.items()}
        return {key: pair for key, pair in pairs.items() if pair[0] < pair[1]}

    wait_for(short, f"all outcomes of {worker.nodename}, as (shown, wanted)", nothing)
    client.send(LAST, 0)
    wait_for(lambda: shown(exporter, worker).get(ONE_RUN), "the last task", equals(1))
    assert without_last(shown(exporter, worker)) == wanted


@dataclass(frozen=True)
class Told:
    """A worker, and how the exporter comes to know what its tasks came to."""

    options: tuple[str, ...]
    agent: bool = True
    pool: str = "prefork"

    @property
    def events(self) -> bool:
        return "-E" in self.options


AGENT = Told(())
EVENTS = Told(("-E",), agent=False)
BOTH = Told(("-E",))
SILENT = Told(("--without-gossip", "--without-heartbeat", "--without-mingle"))


def workers(stage: Stage, exporter: Exporter, *told: Told) -> list[tuple[Told, Client]]:
    """Side by side. From then on it is known which queue is whose, whether or not the clients'
    events come first."""
    options = {"TEST_TASK_LOG": "CRITICAL"}
    clients = [
        Client(
            stage,
            stage.worker("-P", each.pool, "-c", "2", *each.options, agent=each.agent, **options),
        )
        for each in told
    ]
    for client in clients:
        queue = client.worker.queue
        wait_for_value(exporter, 1, "celery_active_worker_count", queue_name=queue)
    return list(zip(told, clients, strict=True))


def run_each(stage: Stage, times: int, *told: Told) -> None:
    """So many tasks of each kind on each worker."""
    exporter = exporter_of(stage)
    with Witness(stage) as witness:
        clients = workers(stage, exporter, *told)
        for _, client in clients:
            witness.names.update(client.send_each(times))
        for each, client in clients:
            wanted = expected(client.sent)
            wait_for_figures(exporter, client, wanted)
            if each.events:
                witness.wait_for_the_last(client.worker)
                assert without_last(witness.figures(client.worker)) == wanted
            check_the_rest(exporter, client, each)


def check_the_rest(exporter: Exporter, client: Client, told: Told) -> None:
    worker = client.worker
    for task in TELLING:
        sent = exporter.value(
            "celery_task_sent_total",
            name=name_of(task),
            hostname="generic",
            queue_name=worker.queue,
        )
        assert sent == client.sent[task]
    for task in ("noop", "retry_once"):
        runtimes = exporter.value(
            "celery_task_runtime_count", name=name_of(task), worker=worker.nodename
        )
        assert runtimes == client.sent[task]
    if told.agent:
        assert no_agent_trouble(exporter, worker)
    else:
        assert not exporter.value(
            "celery_memory_exporter_events_lost_total", worker=worker.nodename
        )


@pytest.mark.parametrize(
    "pools", [("prefork",), ("threads", "solo"), ("gevent", "eventlet")], ids="-".join
)
def test_every_outcome_is_counted_by_agent_and_by_events_exactly(
    stage: Stage, pools: tuple[str, ...]
) -> None:
    times = int(TIMES or (MANY if pools == ("prefork",) else FEW))
    run_each(
        stage, times, *(replace(told, pool=pool) for pool in pools for told in (AGENT, EVENTS))
    )


def test_neither_a_worker_with_agent_and_events_nor_one_that_talks_to_no_other_is_counted_wrongly(
    stage: Stage,
) -> None:
    run_each(stage, int(TIMES or FEW), BOTH, SILENT)


def test_what_no_pool_process_lives_to_tell(stage: Stage) -> None:
    """Hard time limits, and children that are killed."""
    exporter = exporter_of(stage)
    wanted: Figures = {
        (task, field, ""): 2 for task in ("die", "overrun") for field in ("received", "started")
    }
    wanted |= {
        ("die", "failed", "WorkerLostError"): 2,
        ("overrun", "failed", "TimeLimitExceeded"): 2,
    }
    with Witness(stage) as witness:
        clients = workers(stage, exporter, EVENTS, AGENT, SILENT)
        for _, client in clients:
            witness.names.update(client.send("die", times=2))
            witness.names.update(client.send("overrun", times=2, time_limit=1))
        for _, client in clients:
            wait_for_figures(exporter, client, wanted)
        worker = clients[0][1].worker
        witness.wait_for_the_last(worker)
        heard = without_last(witness.figures(worker))
    # Celery 5.7 tells of each hard time limit twice.
    twice = ("overrun", "failed", "TimeLimitExceeded")
    assert heard == {**wanted, twice: heard[twice]}
