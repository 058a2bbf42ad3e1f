"""When a message was sent, as far as it tells."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.message_times import sent_at, unix_time
from tests.strategies import JSON

NOW = 1_800_000_000.0


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2027-01-15T08:00:00", NOW),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
        ("2027-01-15T08:00:00.500000", NOW + 0.5),
        ("2027-01-15T08:00:00.500000123+00:00", NOW + 0.5),
        ("tomorrow", None),
        ("", None),
        (NOW, None),
        (None, None),
    ],
)
def test_an_eta_is_in_utc_unless_it_says_otherwise(text: object, seconds: float | None) -> None:
    assert unix_time(text) == seconds


@given(JSON | st.text())
def test_whatever_stands_for_an_eta_it_is_a_time_or_none(text: object) -> None:
    assert isinstance(unix_time(text), float | None)


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(timezone.utc)))
def test_an_eta_as_celery_writes_it_comes_back(moment: datetime) -> None:
    assert unix_time(moment.isoformat()) == moment.timestamp()
