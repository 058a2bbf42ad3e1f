"""What a setting's value may be: each check answers with the value as it is used, or raises
``ValueError`` with what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from celery_memory_exporter.common.traffic import MAX_BUCKETS, are_bounds

Check = Callable[[Any], Any]


def allowed(
    description: str,
    check: Callable[[Any], bool],
    convert: Callable[[Any], Any] = lambda value: value,
) -> Check:
    """A check that answers with the converted value or raises ``ValueError`` with what is
    allowed."""

    def apply(value: Any) -> Any:
        if not check(value):
            raise ValueError(description)
        return convert(value)

    return apply


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(low: float, high: float) -> Check:
    return allowed(
        f"a number between {low:g} and {high:g}",
        lambda value: _is_number(value) and low <= value <= high,
        float,
    )


def integer(low: int, high: int) -> Check:
    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return allowed(f"an integer between {low} and {high}", check)


boolean = allowed("true or false", lambda value: isinstance(value, bool))
text = allowed("a string", lambda value: isinstance(value, str) and bool(value))
mapping = allowed("a mapping of option names to values", lambda value: isinstance(value, dict))

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S*$")
kombu_url = allowed(
    "a kombu URL such as redis://host:6379/0 or amqp://user:password@host:5672//, or null",
    lambda value: value is None or (isinstance(value, str) and bool(URL.match(value))),
)

LOG_LEVELS = ("debug", "info", "warning", "error")
log_level = allowed(
    f"one of {', '.join(LOG_LEVELS)}",
    lambda value: isinstance(value, str) and value.lower() in LOG_LEVELS,
    str.lower,
)

ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:\s]*)):(?P<port>\d{1,5})$")


def split_address(address: str) -> tuple[str, int]:
    """``host:port``, ``[::1]:port`` or ``:port`` (every address). Raises ``ValueError`` for
    anything else."""
    match = ADDRESS.match(address)
    if match is None or not 0 <= int(match["port"]) <= 65535:
        raise ValueError("host:port, [IPv6]:port or :port, with a port up to 65535")
    return match["six"] or match["host"] or "", int(match["port"])


def address(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError('host:port, [IPv6]:port or :port, in quotes (":9808")')
    split_address(value)
    return value


buckets = allowed(
    f"a list of up to {MAX_BUCKETS} ascending upper bounds in seconds, above zero",
    lambda value: isinstance(value, list) and all(map(_is_number, value)) and are_bounds(value),
    lambda value: tuple(map(float, value)),
)
names = allowed(
    "a list of names",
    lambda value: isinstance(value, list) and all(isinstance(each, str) and each for each in value),
    tuple,
)
text_or_empty = allowed("a string", lambda value: isinstance(value, str))
optional_text = allowed(
    "a string, or null", lambda value: value is None or (isinstance(value, str) and bool(value))
)


def pattern(value: Any) -> re.Pattern[str]:
    if not isinstance(value, str) or not value:
        raise ValueError("a regular expression")
    try:
        return re.compile(value)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from error
