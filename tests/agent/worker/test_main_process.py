"""The agent in a worker's main process, without a broker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.main_process import WorkerAgent
from celery_memory_exporter.agent.worker.records import Bye, Hello
from celery_memory_exporter.common.report import LostRuns, WorkerReport
from tests.agent.worker.known import plain_worker, totals

Start = Callable[..., WorkerAgent]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the agent in a plain worker of this pool."""
    agents: list[WorkerAgent] = []

    def start_in(pool: str, settings: Settings | None = None, **worker: Any) -> WorkerAgent:
        agents.append(WorkerAgent(plain_worker(pool, **worker), settings or Settings()))
        return agents[-1]

    yield start_in
    for agent in agents:
        agent.requests.stop()
        if agent.channel is not None:
            agent.channel.close()
        assert agent.guard.errors == 0


def channel_of(agent: WorkerAgent) -> Channel:
    assert agent.channel is not None
    return agent.channel


def process(pid: int, index: int) -> Any:
    """A child as the pool has it."""
    return SimpleNamespace(pid=pid, index=index, exitcode=None)


def task_of(body: Callable[[], Any] = lambda: None) -> Any:
    trace = SimpleNamespace(__trace__=lambda *_: trace_ok_t(body(), None, 0.1, "None"))
    trace.Request = "celery.worker.request:Request"
    return trace


def consumer() -> Any:
    return SimpleNamespace(task_consumer=None, update_strategies=lambda: None)


def report(agent: WorkerAgent) -> WorkerReport:
    return agent.report(0)


# --- with children -------------------------------------------------------------------------------


def test_what_children_wrote_is_known_after_a_look(start: Start) -> None:
    agent = start("prefork", children=[process(1, 0), process(2, 1)])
    for pid in (1, 2):
        channel_of(agent).send(Hello(pid, pid - 1, 70))
        channel_of(agent).send(totals(pid, 5))
    agent.look()
    told = report(agent)
    assert [(task.name, task.runs) for task in told.tasks] == [("shop.t", {"succeeded": 10})]
    assert [each.process for each in told.processes] == ["main", "0", "1"]
    assert told.children_started == 2


def test_a_child_whose_hello_was_lost_is_known_by_the_pool(start: Start) -> None:
    agent = start("prefork", children=[process(7, 3)])
    agent.look()
    assert [each.process for each in report(agent).processes] == ["main", "3"]


def test_what_a_child_wrote_last_counts_when_it_is_gone(start: Start) -> None:
    children = [process(7, 0)]
    agent = start("prefork", children=children)
    agent.look()
    channel_of(agent).send(totals(7, 5))
    channel_of(agent).send(Bye(7, 155, 9))
    children.clear()
    agent.look()
    told = report(agent)
    assert told.tasks[0].runs == {"succeeded": 5}
    assert told.children_exited == {"tasks": 1}
    assert [each.process for each in told.processes] == ["main"]


def run_in_map(agent: WorkerAgent, slot: int, pid: int, runs: int, name: str = "shop.t") -> None:
    """As a child that has so many runs behind it."""
    row = agent.shared.new_row(slot, pid, (name, "q"))
    assert row is not None
    for _ in range(runs):
        row.add_run(0, 0.5)


def runs_told(agent: WorkerAgent) -> dict[str, dict[str, int]]:
    return {task.name: task.runs for task in report(agent).tasks}


def test_what_children_add_up_in_the_map_is_told_as_it_is(start: Start) -> None:
    agent = start("prefork", children=[process(1, 0), process(2, 1)])
    run_in_map(agent, 0, 1, 5)
    run_in_map(agent, 1, 2, 2)
    agent.look()
    assert runs_told(agent) == {"shop.t": {"succeeded": 7}}
    for row in agent.shared.rows():
        row.totals.add_run(0, 0.5)
    assert runs_told(agent) == {"shop.t": {"succeeded": 9}}


def test_the_rows_of_a_child_that_is_gone_are_counted_once_and_free(start: Start) -> None:
    children = [process(1, 0)]
    agent = start("prefork", children=children)
    run_in_map(agent, 0, 1, 5)
    agent.look()
    children[:] = [process(2, 0)]
    run_in_map(agent, 0, 2, 2)
    for _ in range(2):
        agent.look()
        assert runs_told(agent) == {"shop.t": {"succeeded": 7}}
    assert [row.pid for row in agent.shared.rows()] == [2]


def test_a_child_that_came_and_went_without_a_word_is_known_by_its_rows(start: Start) -> None:
    agent = start("prefork")
    run_in_map(agent, 0, 1, 5)
    agent.look()
    agent.look()
    assert runs_told(agent) == {"shop.t": {"succeeded": 5}}
    told = report(agent)
    assert (told.children_started, sum(told.children_exited.values())) == (1, 1)


def test_children_of_any_slot_have_rows_and_one_beyond_them_is_heard_through_the_pipe(
    start: Start,
) -> None:
    agent = start("prefork", concurrency=2, max_concurrency=3)
    assert agent.shared.new_row(2, 1, ("t", "q")) is not None
    assert agent.shared.new_row(10, 1, ("t", "q")) is None


class Leaving:
    """Children one of which writes its last words while the pool is looked at, and is gone."""

    def __init__(self, last_words: Callable[[], object]) -> None:
        self._last_words = last_words

    def __iter__(self) -> Iterator[Any]:
        self._last_words()
        return iter(())


def test_what_a_child_writes_while_the_pool_is_looked_at_counts(start: Start) -> None:
    agent = start("prefork", children=[process(7, 0)])
    agent.look()
    agent.worker.pool._pool._pool = Leaving(lambda: channel_of(agent).send(totals(7, 5)))
    agent.look()
    told = report(agent)
    assert told.tasks[0].runs == {"succeeded": 5}
    assert [each.process for each in told.processes] == ["main"]


def test_a_child_that_ended_by_itself_has_lost_no_task(start: Start) -> None:
    children = [process(7, 0)]
    agent = start("prefork", children=children)
    agent.look()
    place = agent.shared.claim(0)
    assert place is not None
    place.write(7, 123.5, 0, 0, b"shop.exits")
    channel_of(agent).send(Bye(7, 0, 9))
    children.clear()
    agent.look()
    told = report(agent)
    assert (told.lost, told.children_exited) == ([], {"shutdown": 1})


def test_the_task_that_a_killed_child_was_in_is_lost(start: Start) -> None:
    children = [process(7, 0), process(8, 1)]
    agent = start("prefork", children=children)
    agent.look()
    for slot, pid, since in ((0, 7, 123.5), (1, 8, 0.0)):
        place = agent.shared.claim(slot)
        assert place is not None
        place.write(pid, since, 0, 0, b"shop.fatal")
        children[slot].exitcode = -11
    children.clear()
    agent.look()
    assert report(agent).lost == [LostRuns("shop.fatal", "signal", 1)], "the other one was idle"


def test_a_child_above_its_memory_limit_ended_for_it(start: Start) -> None:
    children = [process(7, 0)]
    agent = start("prefork", children=children, max_memory_per_child=100)
    agent.look()
    channel_of(agent).send(Bye(7, 155, 100 * 1024 + 1))
    children.clear()
    agent.look()
    told = report(agent)
    assert told.children_exited == {"memory": 1}
    assert told.child_memory_limit_bytes == 100 * 1024


def test_a_pool_that_has_ended_has_no_children(start: Start) -> None:
    agent = start("prefork", children=[process(7, 0)])
    agent.look()
    agent.worker.pool._pool = None
    agent.look()
    assert agent.ledger.children == {}


def test_a_child_measures_its_runs_and_tells_them(start: Start) -> None:
    agent = start("prefork")
    task = task_of()
    agent.worker.app.tasks["shop.t"] = task
    if os.fork() == 0:
        try:
            agent.start_child()
            for _ in range(3):
                task.__trace__("uuid", (), {}, {})
            agent.end_child(0)
        finally:
            os._exit(0)
    pid, _ = os.wait()
    agent.worker.pool._pool._pool = [process(pid, 0)]
    agent.look()
    (told,) = report(agent).tasks
    assert (told.name, told.runs) == ("shop.t", {"succeeded": 3})
    assert told.evidence is not None
    assert told.evidence.profile.runs == [1, 2]
    assert agent.ledger.children[pid].exit_code == 0


# --- without -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "audits"), [("solo", True), ("thread", False)])
def test_elsewhere_the_main_process_measures_itself(start: Start, pool: str, audits: bool) -> None:
    agent = start(pool)
    agent.worker.app.tasks["shop.t"] = task = task_of()
    agent.follow(consumer())
    for _ in range(3):
        task.__trace__("uuid", (), {}, {"delivery_info": {"routing_key": "q"}})
    agent.look()
    told = report(agent)
    (row,) = told.tasks
    assert (row.name, row.queue, row.runs) == ("shop.t", "q", {"succeeded": 3})
    assert row.evidence is not None
    assert (row.audited_runs > 0) == audits
    assert told.overhead_seconds > 0
    assert told.children_started == 0


def test_a_task_that_comes_later_is_measured_from_the_next_report_on(start: Start) -> None:
    agent = start("solo")
    agent.follow(consumer())
    agent.worker.app.tasks["shop.t"] = task = task_of()
    report(agent)
    task.__trace__("uuid", (), {}, {})
    assert [each.name for each in report(agent).tasks] == ["shop.t"]


def test_making_a_report_is_none_of_a_runs_own_memory(start: Start) -> None:
    agent = start("solo")
    agent.worker.app.tasks["shop.t"] = task = task_of(lambda: report(agent))
    agent.follow(consumer())
    for _ in range(2):
        task.__trace__("uuid", (), {}, {})
    (told,) = agent.report(0, final=True).tasks
    assert told.evidence is not None
    assert (told.runs, told.audited_runs) == ({"succeeded": 2}, 0)
    assert told.evidence.profile.sampled == [0, 0]


def test_the_main_process_tells_of_its_objects_and_its_peak(start: Start) -> None:
    agent = start("solo")
    main = report(agent).processes[0]
    assert main.gc_objects
    assert main.peak_rss_bytes
    assert main.peak_rss_bytes >= (main.rss_bytes or 0) // 2


def test_objects_are_not_counted_where_the_application_forbids_it(start: Start) -> None:
    agent = start("solo", Settings(census_max_objects=0))
    told = report(agent)
    assert (told.objects, told.processes[0].gc_objects) == ([], None)


def test_reports_dropped_are_told(start: Start) -> None:
    agent = start("solo")
    told = agent.report(7, final=True)
    assert (told.reports_dropped, told.final) == (7, 1)
