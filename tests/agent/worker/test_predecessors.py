"""What a worker that is killed leaves, and what the next one tells of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.worker.main_process import WorkerAgent
from celery_memory_exporter.agent.worker.predecessors import (
    MAX_LEFT,
    Predecessors,
    predecessors,
)
from celery_memory_exporter.agent.worker.shared_map import Shape
from celery_memory_exporter.agent.worker.state import State
from celery_memory_exporter.agent.worker.state_folder import StateFolder
from celery_memory_exporter.common.codec import decode, encode
from celery_memory_exporter.common.report import LostRuns, WorkerReport
from tests.agent.worker.known import plain_worker, totals

NODENAME = "celery@web1"
INTERVAL = 15.0


@pytest.fixture
def folder() -> StateFolder:
    return StateFolder(None)


def process(pid: int, index: int) -> Any:
    return SimpleNamespace(pid=pid, index=index, exitcode=None)


def killed(live: Callable[[WorkerAgent], object], pool: str = "prefork", **worker: Any) -> int:
    """The pid of a worker that lives so, and is killed."""
    if os.fork() == 0:
        try:
            agent = WorkerAgent(plain_worker(pool, **worker), Settings())
            agent.begin()
            live(agent)
            assert agent.guard.errors == 0
            os.kill(os.getpid(), 9)
        finally:
            os._exit(1)
    pid, status = os.wait()
    assert os.WTERMSIG(status) == 9
    return pid


def left(folder: StateFolder, nodename: str = NODENAME, own: str = "") -> Predecessors:
    return Predecessors(predecessors(folder, nodename, own), 200, INTERVAL)


def told(folder: StateFolder) -> WorkerReport:
    """Of the one worker before, which is gone then."""
    (report,) = all_told(left(folder))
    assert folder.names() == []
    return decode(report)


def sent_by(found: Predecessors, now: float) -> list[dict[str, Any]]:
    """What is sent when all are told of at that time."""
    sent: list[dict[str, Any]] = []
    for _ in found.tell(lambda report: not sent.append(report), now):
        pass
    return sent


def all_told(found: Predecessors) -> list[dict[str, Any]]:
    """The reports of all, which are gone then."""
    first, again = (sent_by(found, now) for now in (1_000.0, 1_000.0 + INTERVAL))
    assert first == again
    assert len(found) == 0
    return first


def runs(agent: WorkerAgent, slot: int, pid: int, count: int, name: str = "shop.t") -> None:
    row = agent.shared.new_row(slot, pid, (name, "q"))
    assert row is not None
    for _ in range(count):
        row.add_run(0, 0.5)
        row.add_delta(1.0)


def request(name: str = "shop.t") -> Any:
    delivery = {"routing_key": "q", "exchange": ""}
    return SimpleNamespace(name=name, message=None, delivery_info=delivery)


def runs_told(report: WorkerReport) -> dict[str, dict[str, int]]:
    return {task.name: task.runs for task in report.tasks}


def test_runs_since_the_last_report_are_told_once(folder: StateFolder) -> None:
    def live(agent: WorkerAgent) -> None:
        runs(agent, 0, 7, 5)
        agent.keeper.keep(encode(agent.report(0)))
        runs(agent, 1, 8, 2)
        runs(agent, 1, 8, 1, "shop.u")

    pid = killed(live, children=[process(7, 0), process(8, 1)])
    report = told(folder)
    assert runs_told(report) == {"shop.t": {"succeeded": 7}, "shop.u": {"succeeded": 1}}
    assert sum(report.tasks[0].delta.counts) == 7
    assert (report.worker, report.instance.pid) == (NODENAME, pid)
    assert (report.sequence, report.final) == (2, 0)


def test_a_worker_that_was_killed_before_its_first_report_is_told_of(folder: StateFolder) -> None:
    killed(lambda agent: runs(agent, 0, 7, 5))
    report = told(folder)
    assert (report.sequence, runs_told(report)) == (1, {"shop.t": {"succeeded": 5}})


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_a_child_that_is_gone_is_counted_once_whenever_the_worker_is_killed(
    folder: StateFolder, moment: str
) -> None:
    """Its row becomes the ledger's, which is written; only then the row is free."""
    children = [process(7, 0)]

    def live(agent: WorkerAgent) -> None:
        runs(agent, 0, 7, 5)
        agent.look()
        children.clear()
        if moment == "between":
            agent.shared.free = lambda _: os.kill(os.getpid(), 9)  # type: ignore[method-assign]
        if moment != "before":
            agent.look()
        if moment == "after":
            assert list(agent.shared.rows()) == []

    killed(live, children=children)
    assert runs_told(told(folder)) == {"shop.t": {"succeeded": 5}}


def test_tasks_that_were_running_are_lost_with_their_children(folder: StateFolder) -> None:
    def live(agent: WorkerAgent) -> None:
        for slot, since in ((0, 123.5), (1, 0.0)):
            place = agent.shared.claim(slot)
            assert place is not None
            place.write(7 + slot, since, 0, 0, b"shop.fatal")
        agent.ledger.exited["tasks"] = 3
        agent.ledger.started = 5
        agent.keeper.keep()

    killed(live)
    report = told(folder)
    assert report.lost == [LostRuns("shop.fatal", "signal", 1)], "the other one was idle"
    assert report.children_exited == {"tasks": 3, "signal": 2}
    assert report.children_started == 5


def test_what_is_present_in_a_report_is_not_told_of_the_dead(folder: StateFolder) -> None:
    killed(lambda agent: agent.keeper.keep(encode(agent.report(0))))
    report = told(folder)
    assert (report.processes, report.objects, report.running) == ([], [], [])
    assert (report.active, report.prefetched) == (None, None)
    assert report.pool == "prefork"


def test_events_of_tasks_since_the_last_report_are_told_once(folder: StateFolder) -> None:
    def live(agent: WorkerAgent) -> None:
        for number in range(4_000):  # more than the journal holds
            agent.requests.count("task-received", request(), {})
            agent.requests.count("task-started", request(), {})
            agent.requests.count("task-succeeded", request(), {"runtime": 0.3})
            if number == 1_000:
                agent.keeper.keep(encode(agent.report(0)))
        agent.requests.count_failure(request(), "ValueError")

    killed(live)
    (traffic,) = told(folder).traffic
    assert (traffic.received, traffic.started, traffic.succeeded) == (4_000, 4_000, 4_000)
    assert traffic.failed == {"ValueError": 1}
    assert sum(traffic.runtime.counts) == 4_000
    assert traffic.runtime.sum == pytest.approx(1_200.0)


def test_a_task_that_succeeded_without_the_main_process_hearing_of_it_has(
    folder: StateFolder,
) -> None:
    def live(agent: WorkerAgent) -> None:
        for _ in range(3):
            agent.requests.count("task-succeeded", request(), {"runtime": 0.3})
        runs(agent, 0, 7, 5)

    killed(live)
    report = told(folder)
    assert runs_told(report) == {"shop.t": {"succeeded": 5}}
    assert [(row.name, row.queue, row.succeeded) for row in report.traffic] == [("shop.t", "q", 5)]


@pytest.mark.parametrize("pool", ["solo", "thread"])
def test_runs_in_the_main_process_are_told(folder: StateFolder, pool: str) -> None:
    def live(agent: WorkerAgent) -> None:
        from celery.app.trace import trace_ok_t

        bodies = iter([None, None, lambda: os.kill(os.getpid(), 9)])

        def trace(*_: Any) -> Any:
            body = next(bodies)
            if body is not None:
                body()
            return trace_ok_t(None, None, 0.1, "None")

        task = SimpleNamespace(__trace__=trace, Request="celery.worker.request:Request")
        agent.worker.app.tasks["shop.t"] = task
        agent.wrap_tasks()
        for _ in range(3):
            task.__trace__("uuid", (), {}, {"delivery_info": {"routing_key": "q"}})

    killed(live, pool)
    report = told(folder)
    assert runs_told(report) == {"shop.t": {"succeeded": 2}}
    assert report.lost == [LostRuns("shop.t", "signal", 1)]
    assert report.children_exited == {}


def test_what_has_no_row_in_the_map_is_told_as_it_was_at_the_last_report(
    folder: StateFolder,
) -> None:
    def live(agent: WorkerAgent) -> None:
        agent.ledger.add_child(7, 0, None)
        agent.ledger.apply(totals(7, 5, ("shop.apart", "q")))
        agent.keeper.keep(encode(agent.report(0)))
        runs(agent, 0, 7, 2)

    killed(live, children=[process(7, 0)])
    assert runs_told(told(folder)) == {"shop.apart": {"succeeded": 5}, "shop.t": {"succeeded": 2}}


# --- who may tell --------------------------------------------------------------------------------


def test_two_workers_never_have_the_same_predecessor(folder: StateFolder) -> None:
    killed(lambda agent: runs(agent, 0, 7, 5))
    held = left(folder)
    assert len(held) == 1
    if os.fork() == 0:
        os._exit(len(left(folder)))
    assert os.wait()[1] == 0
    assert len(all_told(held)) == 1
    assert len(left(folder)) == 0


def test_a_worker_that_lives_is_nobodys_predecessor(folder: StateFolder) -> None:
    agent = WorkerAgent(plain_worker(), Settings())
    agent.begin()
    if os.fork() == 0:
        os._exit(len(left(folder)))
    assert os.wait()[1] == 0
    # Even where its lock was closed by a task.
    os.close(agent.state._file)
    if os.fork() == 0:
        os._exit(len(left(folder)))
    assert os.wait()[1] == 0
    agent.requests.stop()


def test_a_predecessor_that_could_not_be_told_of_is_there_for_the_next_one(
    folder: StateFolder,
) -> None:
    killed(lambda agent: runs(agent, 0, 7, 5))
    if os.fork() == 0:
        os._exit(len(left(folder)))
    assert os.WEXITSTATUS(os.wait()[1]) == 1
    assert runs_told(told(folder)) == {"shop.t": {"succeeded": 5}}


def test_a_predecessor_is_told_of_until_so_long_after_the_first_time_by_whichever_worker(
    folder: StateFolder,
) -> None:
    killed(lambda agent: runs(agent, 0, 7, 5))
    told = []
    for now in (1_000.0, 1_000.5, 1_000.0 + INTERVAL / 2, 1_000.0 + INTERVAL):
        found = left(folder)
        told += sent_by(found, now)
    assert [runs_told(decode(report)) for report in told] == [{"shop.t": {"succeeded": 5}}] * 4
    assert folder.names() == []


def test_a_predecessor_that_was_not_sent_has_not_been_told_of(folder: StateFolder) -> None:
    killed(lambda agent: runs(agent, 0, 7, 5))
    found = left(folder)
    assert list(found.tell(lambda _: False, 1_000.0)) == [False]
    assert list(found.tell(lambda _: True, 1_000.0 + INTERVAL)) == [False]
    assert list(found.tell(lambda _: True, 1_000.0)) == [True], "the clock was set back"


def test_a_worker_of_another_name_is_none(folder: StateFolder) -> None:
    killed(lambda agent: runs(agent, 0, 7, 5), hostname="celery@web2")
    assert len(left(folder)) == 0
    assert len(folder.names()) == 2
    assert len(left(folder, "celery@web2")) == 1


def test_a_new_worker_finds_those_before_it_and_not_itself(folder: StateFolder) -> None:
    for count in (1, 2):
        killed(lambda agent, count=count: runs(agent, 0, 7, count))  # type: ignore[misc]
    agent = WorkerAgent(plain_worker(), Settings())
    counted = [runs_told(decode(report)) for report in all_told(agent.predecessors)]
    assert counted == [{"shop.t": {"succeeded": 1}}, {"shop.t": {"succeeded": 2}}]
    agent.requests.stop()


# --- what cannot be told -------------------------------------------------------------------------


def test_of_a_worker_that_was_killed_before_its_first_task_nothing_is_left(
    folder: StateFolder,
) -> None:
    if os.fork() == 0:
        State(StateFolder(None), NODENAME, Shape.of_one(1, 10))
        os.kill(os.getpid(), 9)
    os.wait()
    (name,) = folder.names()
    assert len(left(folder)) == 0
    assert folder.names() == [name], "it may be just about to start"
    os.utime(os.path.join(folder.path, name), (0, 0))
    assert len(left(folder)) == 0
    assert folder.names() == []


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff", b'{"report": 5}', b"null"])
def test_what_is_no_report_is_removed(folder: StateFolder, text: bytes) -> None:
    killed(lambda agent: runs(agent, 0, 7, 5))
    (name,) = [name for name in folder.names() if name.endswith(".json")]
    folder.write(name, text)
    assert len(left(folder)) == 0
    assert folder.names() == []


def test_a_report_without_its_map_is_removed(folder: StateFolder) -> None:
    killed(lambda agent: runs(agent, 0, 7, 5))
    (name,) = [name for name in folder.names() if name.endswith(".map")]
    folder.remove(name)
    assert len(left(folder)) == 0
    assert folder.names() == []


def test_what_turns_out_to_be_none_keeps_nobody_from_telling(folder: StateFolder) -> None:
    for count in (1, 2):
        killed(lambda agent, count=count: runs(agent, 0, 7, count))  # type: ignore[misc]
    found = predecessors(folder, NODENAME, "")
    found[0]._kept = [["shop.t", "q", [1.0]]]
    reports = Predecessors(found, 200, INTERVAL)
    (report,) = sent_by(reports, 1_000.0)
    assert runs_told(decode(report)) == {"shop.t": {"succeeded": 2}}
    assert len(reports) == 1


def test_not_more_than_so_many_are_kept(folder: StateFolder) -> None:
    for _ in range(MAX_LEFT + 2):
        killed(lambda _: None)
    assert len(left(folder)) == MAX_LEFT
    assert len(folder.names()) == 2 * MAX_LEFT


def test_the_cap_of_task_types_holds_for_the_dead(folder: StateFolder) -> None:
    def live(agent: WorkerAgent) -> None:
        for number in range(5):
            runs(agent, 0, 7, 1, f"t{number}")

    killed(live)
    (report,) = sent_by(Predecessors(predecessors(folder, NODENAME, ""), 3, INTERVAL), 1_000.0)
    told = runs_told(decode(report))
    assert sum(each["succeeded"] for each in told.values()) == 5
    assert len(told) == 4
    assert told["other"] == {"succeeded": 2}


def test_a_report_is_as_it_was_but_for_what_was_counted_since(folder: StateFolder) -> None:
    def live(agent: WorkerAgent) -> None:
        agent.keeper.keep(encode(agent.report(7)))

    killed(live)
    report = told(folder)
    assert dataclasses.replace(report, sequence=1).reports_dropped == 7
