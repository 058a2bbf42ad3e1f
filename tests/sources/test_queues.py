"""What a poll makes of a broker's answers, messages and workers' replies; real brokers are in the
integration tests."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES, memory

from celery_memory_exporter.common.message_times import sent_at
from celery_memory_exporter.config.settings import Broker, Queues
from celery_memory_exporter.fleet.facts import QueueReading, WorkerFacts
from celery_memory_exporter.sources.inspect import Inspector, by_nodename, facts_of
from celery_memory_exporter.sources.queue_heads import MAX_MESSAGE_BYTES, Heads, parse
from celery_memory_exporter.sources.queue_reader import is_possible
from celery_memory_exporter.sources.queues import QueuePoller
from tests.strategies import JSON

NOW = 1_800_000_000.0


# --- when a message was sent --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "properties", "sent"),
    [
        ({"timestamp_in_ms": 1_800_000_000_500}, {"timestamp": 1}, 1_800_000_000.5),
        ({}, {"timestamp": 1_800_000_000}, NOW),
        ({"timestamp": 1_800_000_000.25}, {}, NOW + 0.25),
        ({"timestamp": datetime(2027, 1, 15, 8)}, {}, NOW),
        ({"timestamp": datetime(2027, 1, 15, 9, tzinfo=timezone(timedelta(hours=1)))}, {}, NOW),
        ({"sentry-task-enqueued-time": "1800000000.000000000"}, {}, NOW),
        ({"timestamp": 1_800_000_000_000}, {}, None),
        ({"timestamp": 1_800_000_000_000, "sentry-task-enqueued-time": 1_800_000_000}, {}, NOW),
        ({"timestamp": True}, {}, None),
        ({"timestamp": "yesterday"}, {}, None),
        ({"timestamp": "nan"}, {}, None),
        ({"timestamp": 10**400}, {}, None),
        ({}, {}, None),
    ],
)
def test_a_message_tells_when_it_was_sent(
    headers: dict[str, Any], properties: dict[str, Any], sent: float | None
) -> None:
    assert sent_at(headers, properties) == sent


ODD_TIMES = JSON | st.datetimes() | st.datetimes(timezones=st.just(timezone.utc)) | st.binary()
TIMES = st.dictionaries(
    st.sampled_from(["timestamp_in_ms", "timestamp", "sentry-task-enqueued-time"]), ODD_TIMES
)


@given(TIMES | JSON, TIMES | JSON)
def test_whatever_a_message_holds_it_has_a_plausible_time_or_none(
    headers: Any, properties: Any
) -> None:
    sent = sent_at(headers, properties)
    assert sent is None or 946_684_800 <= sent < 4_102_444_800


# --- the message at the head --------------------------------------------------------------------


def message(tag: str | None = "tag", task_id: str | None = "id", **headers: Any) -> bytes:
    """As kombu stores one in Redis."""
    return json.dumps(
        {"body": "W10=", "headers": {"id": task_id, **headers}, "properties": {"delivery_tag": tag}}
    ).encode()


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).isoformat()


PLACE = ("q", 0)


def age_of(body: bytes, sent: Mapping[str, float] | None = None) -> float | None:
    return Heads((sent or {}).get).ages({PLACE: body}, NOW, 0.0).get(PLACE)


def test_the_age_counts_from_when_it_was_sent() -> None:
    assert age_of(message(timestamp=NOW - 5)) == 5


def test_a_senders_fast_clock_makes_no_negative_age() -> None:
    assert age_of(message(timestamp=NOW + 5)) == 0


def test_the_clients_event_tells_the_age_where_the_message_does_not() -> None:
    assert age_of(message(), {"id": NOW - 7}) == 7
    assert age_of(message(timestamp=NOW - 5), {"id": NOW - 7}) == 5


def test_a_task_with_an_eta_waits_since_then() -> None:
    assert age_of(message(timestamp=NOW - 100, eta=iso(NOW - 3))) == 3
    assert age_of(message(timestamp=NOW - 100, eta=iso(NOW - 3)[:-6])) == 3, (
        "without a zone it is UTC"
    )


def test_a_task_that_is_not_due_has_no_age() -> None:
    assert age_of(message(timestamp=NOW - 100, eta=iso(NOW + 3))) is None


def test_a_message_that_tells_nothing_has_waited_at_least_as_long_as_it_was_watched() -> None:
    heads = Heads({}.get)
    assert heads.ages({PLACE: message()}, NOW, 10.0) == {}
    assert heads.ages({PLACE: message()}, NOW + 15, 25.0) == {PLACE: 15}
    assert heads.ages({PLACE: message()}, NOW + 30, 40.0) == {PLACE: 30}
    assert heads.ages({PLACE: message("other")}, NOW + 45, 55.0) == {}, (
        "a retried task is a new message"
    )
    assert heads.ages({PLACE: message(eta=iso(NOW + 55))}, NOW + 50, 60.0) == {}
    assert heads.ages({PLACE: message(eta=iso(NOW + 55))}, NOW + 60, 70.0) == {PLACE: 5}


def test_a_message_that_was_away_is_new() -> None:
    heads = Heads({}.get)
    heads.ages({PLACE: message()}, NOW, 0.0)
    heads.ages({}, NOW, 10.0)
    assert heads.ages({PLACE: message()}, NOW, 20.0) == {}


def test_a_message_without_any_id_is_not_watched() -> None:
    heads = Heads({}.get)
    for monotonic in (0.0, 10.0):
        assert heads.ages({PLACE: message(None, None)}, NOW, monotonic) == {}


def test_a_huge_message_is_not_parsed() -> None:
    assert parse(message(timestamp=NOW, padding="x" * MAX_MESSAGE_BYTES)) is None


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_is_in_a_queue_costs_no_poll(body: bytes) -> None:
    heads = Heads({}.get)
    assert heads.ages({PLACE: body}, NOW, 0.0) == {}


PARTS = st.sampled_from(
    ["headers", "properties", "id", "eta", "timestamp", "delivery_tag", "correlation_id"]
)


@given(
    st.recursive(JSON, lambda inner: st.dictionaries(PARTS, inner), max_leaves=10),
    st.floats(0, 1e9),
)
def test_ages_are_never_negative(value: object, later: float) -> None:
    heads = Heads({}.get)
    body = json.dumps(value).encode()
    for offset in (0.0, later):
        assert all(age >= 0 for age in heads.ages({PLACE: body}, NOW + offset, offset).values())


def test_brackets_without_end_are_no_message() -> None:
    assert parse(b"[" * 100_000) is None


# --- the poll -----------------------------------------------------------------------------------


class Told:
    """What a fleet is told."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.readings: list[QueueReading] | None = None
        self.sources: dict[str, bool] = {}
        self.workers: set[str] = set()
        self.facts: dict[str, WorkerFacts] = {}
        self.read = threading.Event()

    def queue_names(self, broker: str, now: float) -> list[str]:
        return self.names

    def apply_queues(self, broker: str, readings: Iterable[QueueReading], now: float) -> None:
        self.readings = list(readings)
        self.read.set()

    def apply_source(self, name: str, *, up: bool, duration: float | None = None) -> None:
        self.sources[name] = up

    def without_agent(self, broker: str, now: float) -> set[str]:
        return self.workers

    def apply_inspection(self, broker: str, facts: Mapping[str, WorkerFacts], now: float) -> None:
        self.facts.update(facts)

    def sent_at(self, uuid: str) -> float | None:
        return None


@pytest.fixture(autouse=True)
def empty_memory() -> Iterator[None]:
    """kombu's broker in memory is one for the whole process."""
    yield
    memory.Channel.queues.clear()
    memory.Transport.global_state.clear()


def poller(fleet: Told, url: str = "memory://", name: str = "", **options: Any) -> QueuePoller:
    return QueuePoller(fleet, Broker(name=name, url=url, transport_options=options), Queues())  # type: ignore[arg-type]


def send(queue: str, url: str = "memory://", **options: Any) -> None:
    with (
        Connection(url, transport_options=options) as connection,
        connection.SimpleQueue(queue) as simple,
    ):
        simple.put("x")


def test_messages_are_counted_and_a_queue_that_is_not_there_is_empty_and_not_made() -> None:
    fleet = Told("q", "none")
    send("q")
    send("q")
    poller(fleet).poll()
    assert fleet.readings == [QueueReading("q", 2, {0: 2}), QueueReading("none", 0, {0: 0})]
    assert "none" not in memory.Channel.queues
    assert fleet.sources == {"queues": True}


def test_a_broker_of_several_is_a_source_of_its_own() -> None:
    fleet = Told()
    poller(fleet, name="eu").poll()
    assert fleet.sources == {"queues/eu": True}


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128, "\udcff"])
def test_a_name_that_no_queue_can_have_is_not_asked_for(name: str) -> None:
    assert not is_possible(name)
    fleet = Told(name, "q")
    poller(fleet).poll()
    assert fleet.readings is not None
    assert [reading.name for reading in fleet.readings] == ["q"]


class MakesQueues(memory.Transport):
    """As SQS, where asking for the size of a queue makes it."""

    class Channel(memory.Channel):
        def _has_queue(self, queue: str, **_: Any) -> bool:
            return True

        def _resolve_queue_url(self, queue: str) -> str:
            if queue not in self.queues:
                raise LookupError(f"no {queue} in SQS")
            return f"url of {queue}"


def test_no_queue_is_made_and_one_that_is_missing_hides_only_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(TRANSPORT_ALIASES, "makesqueues", "tests.sources.test_queues:MakesQueues")
    fleet = Told("none", "q")
    send("q")
    poller(fleet, "makesqueues://").poll()
    assert fleet.readings == [QueueReading("q", 1, {0: 1})]
    assert "none" not in memory.Channel.queues
    assert fleet.sources == {"queues": False}
    assert "no none in SQS" in caplog.text


def test_a_poll_that_fails_says_so_once_leaves_the_readings_absent_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker is a folder that comes late."""
    folder = tmp_path / "late"
    options = {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(tmp_path / "control"),
    }
    fleet = Told("q")
    polls = poller(fleet, "filesystem://", **options)
    for _ in range(2):
        polls.poll()
        assert fleet.readings == []
        assert fleet.sources == {"queues": False}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "queues cannot be read: broker filesystem://" in caplog.text
    assert "it is tried again every 15 s" in caplog.text
    folder.mkdir()
    send("q", "filesystem://", **options)
    polls.poll()
    assert fleet.readings == [QueueReading("q", 1, {0: 1})]
    assert fleet.sources == {"queues": True}


def test_an_error_of_a_broker_that_cannot_be_reached_has_no_password_in_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fleet = Told("q")
    poller(fleet, "unheard-of://user:s3cr3t@h").poll()
    assert fleet.sources == {"queues": False}
    assert "s3cr3t" not in caplog.text


def test_it_starts_without_waiting_and_stops() -> None:
    fleet = Told("q")
    polls = poller(fleet)
    polls.start()
    try:
        assert fleet.read.wait(timeout=30)
        assert fleet.readings == [QueueReading("q", 0, {0: 0})]
    finally:
        polls.stop()


# --- workers' answers ---------------------------------------------------------------------------

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


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class NoFanout(memory.Transport):
    """As SQS: it carries tasks, and no questions to all workers."""

    implements = memory.Transport.implements.extend(exchange_type=frozenset(["direct"]))
    connections = 0

    def establish_connection(self) -> Any:
        NoFanout.connections += 1
        return super().establish_connection()


@pytest.fixture
def no_fanout(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(TRANSPORT_ALIASES, "nofanout", "tests.sources.test_queues:NoFanout")
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
    asks.ask()
    clock.now = 60.0
    asks.ask()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "workers cannot be asked: broker unheard-of://" in caplog.text
