"""For how long the message at the head of a queue has waited."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.sources.queue_heads import MAX_MESSAGE_BYTES, Heads, parse
from tests.strategies import JSON

NOW = 1_800_000_000.0


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
