"""No secret of a broker's URL is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.urls import passwords, safe_url, without_passwords


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://user:hunter2@h:6379/0", "redis://user:**@h:6379/0"),
        ("redis://:hunter2@h", "redis://:**@h"),
        ("amqp://user@h//", "amqp://user@h//"),
        ("amqp://u:p1@h1//;amqp://u:p/2@h2//", "amqp://u:**@h1//;amqp://u:**@h2//"),
        ("memory://", "memory://"),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert safe_url(url) == shown


@given(st.text(st.characters(exclude_characters=";", codec="utf-8"), min_size=1, max_size=30))
def test_whatever_the_password_is_it_does_not_show(password: str) -> None:
    assert safe_url(f"redis://user:{password}@h/0") == "redis://user:**@h/0"


def test_the_passwords_of_each_url_are_known() -> None:
    assert passwords("amqp://u:one@h;amqp://u@h;amqp://:two@h") == ["one", "two"]


def test_a_password_that_was_taken_for_a_port_is_an_error() -> None:
    with pytest.raises(ValueError, match="Port"):
        passwords("redis://:s3/cret@h/0")


def test_what_was_written_by_one_who_knows_them_is_shown_without_them() -> None:
    url = "redis://:s%2Fc@h;redis://:s@h"
    assert without_passwords("s%2Fc or s/c,\n  no", url) == "** or **, no"
