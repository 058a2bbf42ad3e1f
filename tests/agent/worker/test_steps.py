"""The agent's two bootsteps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.signals import worker_process_init, worker_process_shutdown, worker_shutdown

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.worker import steps
from celery_memory_exporter.agent.worker.main_process import WorkerAgent
from celery_memory_exporter.agent.worker.predecessors import Predecessors
from celery_memory_exporter.agent.worker.state_folder import StateFolder
from celery_memory_exporter.agent.worker.steps import AgentStep, ReportStep
from celery_memory_exporter.common.report import WorkerReport
from tests import samples
from tests.agent.worker.broker import App
from tests.agent.worker.known import plain_worker

SIGNALS = (worker_process_init, worker_process_shutdown, worker_shutdown)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Steps connect for as long as their process lives."""
    before = [list(signal.receivers) for signal in SIGNALS]
    yield
    for signal, receivers in zip(SIGNALS, before, strict=True):
        signal.receivers = receivers


def worker_with(settings: Settings, pool: str = "solo", **changes: Any) -> Any:
    app = App()
    app.celery_memory_settings = settings
    return plain_worker(pool, app=app, **changes)


def agent_of(worker: Any) -> WorkerAgent:
    agent: WorkerAgent = worker.memory_agent
    return agent


def end(worker: Any) -> None:
    agent_of(worker).requests.stop()


# --- the worker's step ---------------------------------------------------------------------------


def test_the_worker_gets_its_agent() -> None:
    worker = worker_with(Settings())
    step = AgentStep(worker)
    assert step.enabled
    assert agent_of(worker).worker is worker
    assert step.guard is agent_of(worker).guard
    end(worker)


def test_an_agent_that_is_turned_off_is_not_there() -> None:
    worker = worker_with(Settings(enabled=False))
    assert not AgentStep(worker).enabled
    assert worker.memory_agent is None


def test_an_agent_that_cannot_be_made_keeps_no_worker_from_starting() -> None:
    worker = worker_with(Settings(), pool_cls=None)
    step = AgentStep(worker)
    assert worker.memory_agent is None
    assert step.guard.errors == 1


@pytest.mark.parametrize(
    ("broker", "events_url", "level", "line"),
    [
        (
            "redis://:s@here/0",
            None,
            "INFO",
            "The memory agent is on: it reports every 2.5 s to redis://:**@here/0",
        ),
        (
            "sqs://key:s@",
            "redis://:s@there",
            "INFO",
            "The memory agent is on: it reports every 2.5 s to redis://:**@there",
        ),
        (
            "sqs://key:s@",
            None,
            "WARNING",
            "The memory agent cannot report: sqs://key:**@ carries no events. Set "
            "CELERY_MEMORY_EVENTS_URL to a broker that does.",
        ),
    ],
)
def test_the_agent_says_at_start_where_it_reports_to_or_that_it_cannot(
    broker: str, events_url: str | None, level: str, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    worker = worker_with(Settings(interval_seconds=2.5, events_url=events_url))
    worker.app.conf.broker_write_url = broker
    AgentStep(worker)
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [(level, line)]
    end(worker)


def test_what_cannot_be_said_at_start_keeps_no_worker_from_starting() -> None:
    worker = worker_with(Settings())
    del worker.app.conf
    assert AgentStep(worker).guard.errors == 1
    assert worker.memory_agent is not None
    end(worker)


@pytest.mark.parametrize(("pool", "connected"), [("solo", 0), ("prefork", 1)])
def test_only_children_are_told_that_they_begin(pool: str, connected: int) -> None:
    before = len(worker_process_init.receivers)
    worker = worker_with(Settings(), pool)
    AgentStep(worker)
    assert len(worker_process_init.receivers) - before == connected
    end(worker)


def test_the_last_report_comes_when_the_worker_has_stopped() -> None:
    worker = worker_with(Settings())
    AgentStep(worker).on_shutdown(worker)
    ((_, report),) = worker.app.sent
    assert (report["final"], report["worker"]) == (1, "celery@web1")
    assert worker.app.open == 0, "its connection is closed"


def test_a_worker_that_has_told_all_leaves_nothing() -> None:
    worker = worker_with(Settings())
    step = AgentStep(worker)
    assert len(left_in_folder()) == 1
    step.on_shutdown(worker)
    assert left_in_folder() == []


def test_a_worker_whose_broker_is_away_leaves_its_last_report() -> None:
    worker = worker_with(Settings())
    step = AgentStep(worker)
    worker.app.gone = True
    step.on_shutdown(worker)
    assert [Path(name).suffix for name in left_in_folder()] == [".json", ".map"]


def left_in_folder() -> list[str]:
    return StateFolder(None).names()


# --- the consumer's step -------------------------------------------------------------------------


class Timer:
    """Fires by hand."""

    def __init__(self) -> None:
        self.every: list[float] = []
        self.ticks: list[Any] = []

    def call_repeatedly(self, seconds: float, tick: Any, *, priority: int) -> Any:
        self.every.append(seconds)
        self.ticks.append(tick)
        return SimpleNamespace(cancel=lambda: self.ticks.remove(tick))

    def fire(self) -> None:
        for tick in self.ticks:
            tick()


class Agent:
    """Notes what it is asked for, and reports what it is given."""

    def __init__(self, settings: Settings, left: Sequence[Any] = ()) -> None:
        """``left``: what workers before this one left."""
        self.guard = Guard()
        self.settings = settings
        self.requests = SimpleNamespace(follow=lambda _: self.asked.append("follow requests"))
        self.keeper = SimpleNamespace(
            keep=lambda report: self.kept.append(report["reports_dropped"])
        )
        self.predecessors = Predecessors(left, 200, settings.interval_seconds)
        self.kept: list[int] = []
        self.reports_dropped = 0
        self.asked: list[str] = []

    def follow(self, consumer: Any) -> None:
        self.asked.append("follow")

    def look(self) -> None:
        self.asked.append("look")

    def begin(self) -> None:
        self.asked.append("begin")

    def report(self, reports_dropped: int) -> WorkerReport:
        self.asked.append("report")
        return dataclasses.replace(samples.report(), reports_dropped=reports_dropped)


def consumer_of(agent: Agent | None) -> Any:
    """With a broker that is there, and a timer that fires by hand."""
    controller = SimpleNamespace(memory_agent=agent)
    return SimpleNamespace(controller=controller, app=App(), hostname="celery@web1", timer=Timer())


def started(agent: Agent) -> tuple[ReportStep, Any]:
    consumer = consumer_of(agent)
    step = ReportStep(consumer)
    step.start(consumer)
    return step, consumer


def test_a_consumer_of_a_worker_without_agent_has_no_reports() -> None:
    assert not ReportStep(consumer_of(None)).enabled


def test_at_the_consumers_start_its_tracers_are_followed_and_children_looked_at() -> None:
    agent = Agent(Settings())
    _, consumer = started(agent)
    assert agent.asked == ["follow", "look", "begin"]
    assert consumer.timer.every == [0.5]
    assert consumer.app.sent == []


def test_each_tick_looks_and_a_report_goes_when_it_is_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000.0
    monkeypatch.setattr(steps, "time", SimpleNamespace(monotonic=lambda: now, time=lambda: now))
    agent = Agent(Settings(interval_seconds=15.0))
    _, consumer = started(agent)
    reported = []
    for _ in range(100):
        agent.asked.clear()
        consumer.timer.fire()
        assert agent.asked[0] == "look"
        if agent.asked[1:] == ["follow requests", "report"]:
            reported.append(now - 1_000.0)
        now += 0.5
    assert reported == [2.0, 17.0, 32.0, 47.0], "the first one soon, then one an interval"
    assert len(consumer.app.sent) == 4


class Left:
    """What a dead worker left, which is told of from now on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.since: float | None = None
        self.discarded = False

    def report(self, max_tasks: int) -> dict[str, Any]:
        return {"worker": self.name}

    def sent(self, now: float) -> float:
        self.since = now if self.since is None else self.since
        return now - self.since

    def discard(self) -> None:
        self.discarded = True


def workers_told(consumer: Any) -> list[str]:
    return [report["worker"] for _, report in consumer.app.sent]


def test_predecessors_are_told_of_first_and_each_has_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000.0
    monkeypatch.setattr(steps, "time", SimpleNamespace(monotonic=lambda: now, time=lambda: now))
    left = [Left("first"), Left("second")]
    _, consumer = started(Agent(Settings(interval_seconds=15.0), left))
    told: dict[float, list[str]] = {}
    for _ in range(70):
        consumer.timer.fire()
        so_far = sum(map(len, told.values()))
        if len(workers_told(consumer)) > so_far:
            told[now - 1_000.0] = workers_told(consumer)[so_far:]
        now += 0.5
    assert told == {
        0.0: ["first"],
        15.0: ["first", "second"],
        30.0: ["second", "celery@web1"],
    }
    assert all(each.discarded for each in left)


def test_a_predecessor_of_whom_nothing_could_be_sent_is_told_of_later() -> None:
    left = [Left("first")]
    agent = Agent(Settings(), left)
    step, consumer = started(agent)
    consumer.app.gone = True
    step.close(consumer)
    step.close(consumer)
    assert (len(agent.predecessors), left[0].discarded) == (1, False)
    step.stop(consumer)
    consumer.app.gone = False
    step.start(consumer)
    step.close(consumer)
    assert workers_told(consumer) == ["first", "celery@web1"]
    assert not left[0].discarded, "the next worker tells of it again"


def test_at_the_end_all_predecessors_are_told_of_before_the_worker_itself() -> None:
    step, consumer = started(Agent(Settings(), [Left("first"), Left("second")]))
    step.close(consumer)
    assert workers_told(consumer) == ["first", "second", "celery@web1"]


def test_a_worker_that_ended_by_an_error_is_told_of_again_by_the_next_one() -> None:
    worker = worker_with(Settings())
    step = AgentStep(worker)
    worker.exitcode = 1
    step.on_shutdown(worker)
    assert len(worker.app.sent) == 1
    assert [Path(name).suffix for name in left_in_folder()] == [".json", ".map"]


def test_what_is_sent_is_kept_before() -> None:
    agent = Agent(Settings())
    step, consumer = started(agent)
    consumer.app.gone = True
    step.close(consumer)
    assert agent.kept == [0]


def test_before_the_worker_stops_what_happened_since_is_told() -> None:
    agent = Agent(Settings())
    step, consumer = started(agent)
    step.close(consumer)
    assert agent.asked[-2:] == ["look", "report"]
    assert len(consumer.app.sent) == 1


def test_a_stopped_consumer_is_looked_at_no_more_and_its_connection_closed() -> None:
    agent = Agent(Settings())
    step, consumer = started(agent)
    step.close(consumer)
    step.stop(consumer)
    assert consumer.timer.ticks == []
    assert consumer.app.open == 0


def test_reports_that_one_consumer_dropped_are_known_to_the_next() -> None:
    agent = Agent(Settings())
    step, consumer = started(agent)
    consumer.app.gone = True
    step.close(consumer)
    assert agent.guard.errors == 0, "the broker's trouble is not the agent's"
    step.stop(consumer)
    assert agent.reports_dropped == 1
    again, consumer = started(agent)
    again.close(consumer)
    ((_, report),) = consumer.app.sent
    assert report["reports_dropped"] == 1
