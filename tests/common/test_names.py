"""Names as label values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.names import (
    MAX_NAME_LENGTH,
    hostname_of,
    pool_name,
    printable,
    short_name,
)


@given(st.text())
def test_what_utf8_can_hold_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters(exclude_categories=[])))
def test_whatever_it_was_utf8_can_hold_it(text: str) -> None:
    printable(text).encode()
    short_name(text).encode()


def test_a_lone_surrogate_is_spelled_out() -> None:
    assert printable("shop.\udcff") == "shop.\\udcff"


@given(st.text(max_size=MAX_NAME_LENGTH))
def test_a_valid_name_is_its_own_label_value(name: str) -> None:
    assert short_name(name) == name


@given(st.text(min_size=MAX_NAME_LENGTH))
def test_a_long_name_is_cut(name: str) -> None:
    assert short_name(name) == name[:MAX_NAME_LENGTH]


@given(st.text(st.characters(exclude_categories=[])))
def test_a_name_that_was_shortened_before_stays(name: str) -> None:
    """The agent shortens, and the exporter after it."""
    assert short_name(short_name(name)) == short_name(name)


@pytest.mark.parametrize(
    ("nodename", "hostname"), [("celery@web1", "web1"), ("a@b@c", "b@c"), ("web1", "web1")]
)
def test_the_hostname_is_the_nodename_after_the_at_sign(nodename: str, hostname: str) -> None:
    assert hostname_of(nodename) == hostname


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("celery.concurrency.prefork", "prefork"),
        ("celery.concurrency.thread", "threads"),
        ("celery.concurrency.solo", "solo"),
        ("shop.pools.custom", "custom"),
        ("custom", "custom"),
    ],
)
def test_a_pool_is_named_by_its_module(module: str, name: str) -> None:
    assert pool_name(module) == name
