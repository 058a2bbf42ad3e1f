"""When a message was due."""

from __future__ import annotations

import pytest

from celery_memory_exporter.common.message_times import unix_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10", 10.0),
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T02:00:10.5+02:00", 10.5),
        ("1970-01-01T00:00:10.123456789+00:00", 10.123456),
        ("soon", None),
        (None, None),
    ],
)
def test_an_eta_as_celery_writes_it(text: str | None, seconds: float | None) -> None:
    assert unix_time(text) == seconds
