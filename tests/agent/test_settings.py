"""What the environment sets about the agent."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import pytest

from celery_memory_exporter.agent.settings import MAX_BUCKETS, PREFIX, Settings


def test_settings_from_the_environment() -> None:
    settings = Settings.from_environment(
        {
            "CELERY_MEMORY_INTERVAL_SECONDS": "2",
            "CELERY_MEMORY_EVENTS_URL": "redis://e",
            "CELERY_MEMORY_ENABLED": "off",
        }
    )
    assert (settings.interval_seconds, settings.events_url, settings.enabled) == (
        2.0,
        "redis://e",
        False,
    )


def test_a_setting_that_cannot_be_read_keeps_its_default_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        settings = Settings.from_environment(
            {
                "CELERY_MEMORY_INTERVAL_SECONDS": "soon",
                "CELERY_MEMORY_MAX_TASKS": "0",
                "CELERY_MEMORY_ENABLED": "",
                "CELERY_MEMORY_EVENTS_URL": "redis://:s3/cret@h/0",
            }
        )
    assert settings == Settings()
    assert len(caplog.records) == 3
    assert "s3" not in caplog.text


def read(name: str, text: str) -> Any:
    return getattr(Settings.from_environment({PREFIX + name.upper(): text}), name)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("interval_seconds", "0.001", 0.001),
        ("interval_seconds", "86400", 86_400.0),
        ("max_tasks", "10000", 10_000),
        ("census_max_objects", "0", 0),
        ("audits", "No", False),
        ("runtime_buckets", " 0.5, 1,2 ", (0.5, 1.0, 2.0)),
    ],
)
def test_what_is_allowed_is_taken(name: str, text: str, value: object) -> None:
    assert read(name, text) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("interval_seconds", "0"),
        ("interval_seconds", "nan"),
        ("interval_seconds", "86401"),
        ("max_tasks", "10001"),
        ("max_tasks", "1.5"),
        ("census_max_objects", "-1"),
        ("audits", "maybe"),
        ("runtime_buckets", "1,1"),
        ("runtime_buckets", "0,1"),
        ("runtime_buckets", ""),
        ("queue_wait_buckets", ",".join(map(str, range(1, MAX_BUCKETS + 2)))),
        ("events_url", "redis://user:pass/word@host/0"),
    ],
)
def test_what_is_not_allowed_leaves_the_default(name: str, text: str) -> None:
    assert read(name, text) == getattr(Settings(), name)


def test_each_setting_is_explained() -> None:
    assert all(field.metadata["doc"] for field in dataclasses.fields(Settings))
