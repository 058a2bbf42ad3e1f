"""What a setting's value may be."""

from __future__ import annotations

import re
from typing import Any

import pytest

from celery_memory_exporter.config import checks
from celery_memory_exporter.config.checks import Check, split_address


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        (":9808", ("", 9808)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("[::1]:80", ("::1", 80)),
        ("web.local:9", ("web.local", 9)),
    ],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["9808", "::1:80", "host", "host:", "a b:80", ":65536", ""])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_address(address)


@pytest.mark.parametrize(
    ("check", "value", "used"),
    [
        (checks.number(1, 5), 3, 3.0),
        (checks.number(1, 5), 5, 5.0),
        (checks.integer(1, 5), 1, 1),
        (checks.boolean, False, False),
        (checks.text, "a", "a"),
        (checks.text_or_empty, "", ""),
        (checks.optional_text, None, None),
        (checks.mapping, {}, {}),
        (checks.kombu_url, None, None),
        (checks.kombu_url, "sentinel://a:1;sentinel://b:1", "sentinel://a:1;sentinel://b:1"),
        (checks.log_level, "INFO", "info"),
        (checks.address, ":9808", ":9808"),
        (checks.buckets, [0.5, 1], (0.5, 1.0)),
        (checks.names, ["a", "b"], ("a", "b")),
        (checks.pattern, "celery@.*", re.compile("celery@.*")),
    ],
)
def test_what_is_allowed_is_answered_as_it_is_used(check: Check, value: Any, used: object) -> None:
    assert check(value) == used
    assert type(check(value)) is type(used)


@pytest.mark.parametrize(
    ("check", "values"),
    [
        (checks.number(1, 5), [0, 5.1, True, "3", None, float("nan"), float("inf")]),
        (checks.integer(1, 5), [0, 6, 2.0, True, "3", None]),
        (checks.boolean, [1, "yes", None]),
        (checks.text, ["", 7, None]),
        (checks.text_or_empty, [7, None]),
        (checks.optional_text, ["", 7]),
        (checks.mapping, [[], "a", None]),
        (checks.kombu_url, ["host", "", 7, "redis: //a"]),
        (checks.log_level, ["loud", 10, None]),
        (checks.address, [9808, None, "host"]),
        (checks.buckets, [[], [0, 1], [2, 1], [1, 1], ["a"], 1, list(range(1, 52))]),
        (checks.names, ["a", [""], [7], None]),
        (checks.pattern, ["(", "", None]),
    ],
)
def test_what_is_not_allowed_is_refused(check: Check, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # its text is what is allowed
            check(value)
        assert str(caught.value)
