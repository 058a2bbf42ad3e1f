"""Who is known, who is silent, and who has an agent."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.report import WorkerReport
from celery_memory_exporter.fleet.facts import WorkerFacts, WorkerProcesses
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.worker import WorkerState
from celery_memory_exporter.fleet.workers import Workers, consumers, refusal
from tests import samples

GROUPS = ((re.compile("celery@web.*"), "celery@web"),)


def make_workers(*, limit: int = 1_000, brokers: tuple[str, ...] = ("",)) -> Workers:
    return Workers(Rules(samples.BOOT, Limits(workers=limit)), brokers, 0.0)


def names(workers: Workers, now: float = 0.0) -> list[str]:
    return [worker.nodename for worker in workers.at(now)]


def admitted(workers: Workers, nodename: str, now: float = 0.0, broker: str = "") -> WorkerState:
    worker = workers.admit(broker, nodename, now)
    assert worker is not None
    worker.seen = now
    return worker


def report(workers: Workers, nodename: str, now: float = 0.0, pid: int = 100) -> None:
    told = samples.report(worker=nodename, instance=samples.instance(pid), processes=[])
    workers.take_report(admitted(workers, nodename, now), told, now, None)


# --- who is known -------------------------------------------------------------------------------


def test_there_is_no_room_beyond_the_limit() -> None:
    workers = make_workers(limit=1)
    first = admitted(workers, "celery@a")
    assert workers.admit("", "celery@b", 0.0) is None
    assert workers.admit("", "celery@a", 0.0) is first
    assert workers.take_table([samples.table("celery@b")], 0.0) == 1


def test_a_worker_that_is_heard_at_last_is_no_longer_nowhere() -> None:
    workers = make_workers(brokers=("eu", "us"))
    workers.take_table([samples.table("celery@bare")], 0.0)
    admitted(workers, "celery@bare", broker="us")
    assert [worker.key for worker in workers] == [("us", "celery@bare")]


def test_a_silent_worker_is_not_there_and_is_still_held_until_it_is_forgotten() -> None:
    workers = make_workers()
    admitted(workers, "celery@a", 0.0)
    admitted(workers, "celery@b", 500.0)
    assert names(workers, 600.0) == ["celery@a", "celery@b"]
    assert names(workers, 601.0) == ["celery@b"]
    assert len(workers) == 2
    assert [worker.nodename for worker in workers.forget(601.0)] == ["celery@a"]
    assert len(workers) == 1


def test_a_worker_whose_agent_is_silent_goes_on_without_it() -> None:
    workers = make_workers()
    report(workers, "celery@a", 0.0)
    admitted(workers, "celery@a", 500.0)
    (worker,) = workers.at(601.0)
    assert worker.report is None
    assert workers.all_have_agents, "looking has changed nothing"
    workers.forget(601.0)
    assert not workers.all_have_agents


def test_a_name_that_was_guessed_goes_when_the_agent_tells_another_one() -> None:
    workers = make_workers()
    cgroup = samples.table().cgroup
    inside = [
        WorkerProcesses("celery@host", samples.seen(pid, inner=pid), (), cgroup)
        for pid in (4_000, 5_000)
    ]
    workers.take_table(inside, 0.0)
    assert names(workers) == ["celery@host", "celery@host#2"]
    for name, pid in (("celery@a", 4_000), ("celery@b", 5_000)):
        report(workers, name, pid=pid)
        workers.take_table(inside, 0.0)
    assert names(workers) == ["celery@a", "celery@b"]


def test_a_name_that_was_guessed_stays_where_somebody_else_has_it() -> None:
    workers = make_workers()
    workers.take_table([samples.table("celery@host")], 0.0)
    admitted(workers, "celery@host").beat(1, 0.0, offline=False)
    report(workers, "celery@web1")
    workers.take_table([samples.table("celery@host")], 0.0)
    assert names(workers) == ["celery@host", "celery@web1"]


# --- who has an agent ---------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("hear", "report", "table", "nothing")),
        st.sampled_from(("celery@a", "celery@b", "celery@web1", "celery@web2")),
        st.sampled_from(("eu", "us", "")),
        st.sampled_from((0.0, 1.0, 300.0, 601.0)),
    ),
    max_size=30,
)


@given(STEPS)
def test_whether_all_have_agents_is_what_a_look_at_each_finds(
    steps: list[tuple[str, str, str, float]],
) -> None:
    rules = Rules(samples.BOOT, Limits(workers=5), worker_groups=GROUPS)
    workers, now = Workers(rules, ("eu", "us"), 0.0), 0.0
    for what, nodename, broker, pause in steps:
        now += pause
        workers.forget(now)
        if what == "table":
            workers.take_table([samples.table(nodename)], now)
        elif what != "nothing":
            worker = workers.admit(broker, nodename, now)
            if worker is not None and what == "report":
                workers.take_report(worker, samples.report(worker=nodename), now, None)
        looked = [worker.report is not None for worker in workers]
        assert workers.all_have_agents == (bool(looked) and all(looked))


# --- which report is taken ----------------------------------------------------------------------

RESTARTED = samples.instance(200, started_at=2_000.0)


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (None, None),
        (samples.report(sequence=2), None),
        (samples.report(sequence=3), "duplicate"),
        (samples.report(sequence=4), "stale"),
        (samples.report(sequence=9, instance=samples.instance(90, started_at=900.0)), None),
        (samples.report(sequence=1, instance=RESTARTED), "stale"),
    ],
)
def test_a_report_is_taken_if_it_is_newer_than_the_one_held(
    held: WorkerReport | None, reason: str | None
) -> None:
    assert refusal(held, samples.report(sequence=3)) == reason


# --- who consumes -------------------------------------------------------------------------------


def test_consumers_are_counted_by_broker_and_queue_with_their_processes() -> None:
    workers = make_workers()
    report(workers, "celery@web1")
    admitted(workers, "celery@bare").learn(WorkerFacts("prefork", 4, 4, ("celery", "q")), "celery")
    admitted(workers, "celery@far", broker="eu").learn(WorkerFacts("solo", 1, 0, ("q",)), "celery")
    assert consumers(workers) == {
        ("", "celery"): (2, 6),
        ("", "q"): (1, 4),
        ("eu", "q"): (1, 0),
    }
