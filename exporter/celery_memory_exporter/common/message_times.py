"""When a task's message was sent, by what its sender wrote into it: standard library only, because
the agent loads it.

Celery itself writes no such time. Nothing here raises, whatever a message holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

#: Headers and properties that may tell when a message was sent. Most messages have none of them, so
#: this is looked at first.
HEADERS = ("timestamp_in_ms", "timestamp", "sentry-task-enqueued-time")
PROPERTIES = ("timestamp",)
#: 2000-01-01 and 2100-01-01. What lies outside was written in another unit, or is no time.
PLAUSIBLE_SECONDS = (946_684_800.0, 4_102_444_800.0)
#: Digits of a second beyond microseconds.
LONG_FRACTION = re.compile(r"(\.\d{6})\d+")


def sent_at(headers: Mapping[str, Any], properties: Mapping[str, Any]) -> float | None:
    """Unix seconds by the sender's (or the broker's) clock, or ``None`` when the message does not
    tell.

    RabbitMQ's message-timestamp plugin writes ``timestamp_in_ms`` and the property ``timestamp``,
    publishers of their own one of them, and Sentry's Celery integration
    ``sentry-task-enqueued-time``.
    """
    if not (_has_any(headers, HEADERS) or _has_any(properties, PROPERTIES)):
        return None
    milliseconds = _number(_get(headers, "timestamp_in_ms"))
    times = (
        None if milliseconds is None else milliseconds / 1000,
        _number(_get(properties, "timestamp")),
        _number(_get(headers, "timestamp")),
        _number(_get(headers, "sentry-task-enqueued-time")),
    )
    return next((each for each in times if each is not None and _is_plausible(each)), None)


def unix_time(text: object) -> float | None:
    """Unix seconds of an eta as Celery writes it (ISO 8601; UTC where it names no zone); ``None``
    for anything else."""
    if not isinstance(text, str):
        return None
    try:
        # Python 3.10 reads no Z and only whole microseconds.
        moment = datetime.fromisoformat(LONG_FRACTION.sub(r"\1", text.replace("Z", "+00:00")))
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        return None


def _has_any(mapping: object, keys: tuple[str, ...]) -> bool:
    return isinstance(mapping, Mapping) and any(key in mapping for key in keys)


def _get(mapping: object, key: str) -> object:
    return mapping.get(key) if isinstance(mapping, Mapping) else None


def _number(value: object) -> float | None:
    if isinstance(value, datetime):
        return _timestamp(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _timestamp(moment: datetime) -> float | None:
    # py-amqp's and Celery's naive times are UTC.
    aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    try:
        return aware.timestamp()
    except (ValueError, OverflowError):
        return None


def _is_plausible(seconds: float) -> bool:
    low, high = PLAUSIBLE_SECONDS
    return low <= seconds < high
