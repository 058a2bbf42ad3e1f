"""What workers answer, and when they are asked."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport import TRANSPORT_ALIASES

from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.fleet.facts import WorkerFacts
from celery_memory_exporter.sources.inspect import Inspector, by_nodename, facts_of, pool_of
from tests.sources.doubles import Clock, NoFanout, Told
from tests.strategies import JSON

STATS = {
    "pool": {
        "implementation": "celery.concurrency.prefork:TaskPool",
        "max-concurrency": 2,
        "processes": [11, 12],
    }
}


def test_a_prefork_worker_has_processes() -> None:
    assert facts_of(STATS, [{"name": "a"}, {"name": "b"}]) == WorkerFacts(
        "prefork", 2, 2, ("a", "b")
    )


@pytest.mark.parametrize(
    ("module", "pool"),
    [("solo", "solo"), ("thread", "threads"), ("gevent", "gevent"), ("eventlet", "eventlet")],
)
def test_other_pools_have_none(module: str, pool: str) -> None:
    told = {
        "implementation": f"celery.concurrency.{module}:TaskPool",
        "max-concurrency": 4,
        "processes": [11],
    }
    assert facts_of({"pool": told}, []) == WorkerFacts(pool, 4, 0, ())


def test_an_answer_that_is_an_error_says_nothing() -> None:
    assert facts_of({"error": "boom"}, [{"name": "a"}]) is None
    assert facts_of(STATS, {"error": "boom"}) is None


def test_only_those_that_were_asked_are_heard() -> None:
    assert by_nodename([{"a@h": 1, "x@h": 2}, "what", {"b@h": 3}], ["a@h", "b@h", "c@h"]) == {
        "a@h": 1,
        "b@h": 3,
    }


def well_formed(facts: WorkerFacts) -> bool:
    counts = all(
        isinstance(count, int) and 0 <= count <= 100_000
        for count in (facts.concurrency or 0, facts.processes)
    )
    texts = all(1 <= len(name) <= 255 for name in (*facts.queues, facts.pool or "unknown"))
    return counts and texts and len(facts.queues) <= 1000


KEYS = st.sampled_from(["pool", "implementation", "max-concurrency", "processes", "name"])
REPLIES = st.recursive(
    JSON, lambda inner: st.dictionaries(KEYS, inner) | st.lists(inner), max_leaves=10
)


@given(
    st.fixed_dictionaries({"pool": st.dictionaries(KEYS, REPLIES)}) | REPLIES,
    st.lists(REPLIES) | REPLIES,
)
def test_whatever_a_worker_answers_is_bounded_or_nothing(stats: object, queues: object) -> None:
    facts = facts_of(stats, queues)
    assert facts is None or well_formed(facts)


@given(REPLIES)
def test_whatever_comes_as_replies_is_sorted(replies: object) -> None:
    assert by_nodename(replies, ["a@h"]).keys() <= {"a@h"}


@pytest.fixture
def no_fanout(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(TRANSPORT_ALIASES, "nofanout", "tests.sources.doubles:NoFanout")
    NoFanout.connections = 0
    return "nofanout://"


def inspector(fleet: Told, url: str, clock: Clock) -> Inspector:
    return Inspector(fleet, Broker(url=url), interval=60, monotonic=clock)  # type: ignore[arg-type]


def test_without_fanout_nobody_is_asked(no_fanout: str, caplog: pytest.LogCaptureFixture) -> None:
    fleet = Told()
    fleet.workers = {"a@h"}
    caplog.set_level(logging.INFO)
    inspector(fleet, no_fanout, Clock()).ask()
    assert fleet.facts == {}
    assert "cannot be asked what they consume: the broker has no fanout" in caplog.text


def test_each_worker_is_asked_once_in_an_interval(no_fanout: str) -> None:
    fleet, clock = Told(), Clock()
    asks = inspector(fleet, no_fanout, clock)
    for now, workers, connections in [
        (0.0, set(), 0),
        (5.0, {"a@h"}, 1),
        (10.0, {"a@h"}, 1),
        (15.0, {"a@h", "b@h"}, 2),
        (64.0, {"a@h", "b@h"}, 2),
        (65.0, {"a@h", "b@h"}, 3),
        (70.0, {"b@h"}, 3),
        (75.0, {"a@h", "b@h"}, 4),
    ]:
        clock.now, fleet.workers = now, workers
        asks.ask()
        assert NoFanout.connections == connections, now


def test_a_question_that_fails_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    fleet, clock = Told(), Clock()
    fleet.workers = {"a@h"}
    asks = inspector(fleet, "unheard-of://", clock)
    for clock.now in (0.0, 30.0, 60.0):  # in between nobody is due
        asks.ask()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "workers cannot be asked: broker unheard-of://" in caplog.text


def test_a_pool_is_named_as_the_agent_names_it() -> None:
    assert pool_of("celery.concurrency.thread:TaskPool") == "threads"
    assert pool_of("shop.pools:Custom") == "pools"


@pytest.mark.parametrize("implementation", [None, 7, "", "x" * 256])
def test_what_names_no_pool_is_unknown(implementation: object) -> None:
    assert pool_of(implementation) is None
