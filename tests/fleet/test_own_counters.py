"""What the exporter counts about itself."""

from __future__ import annotations

import itertools

import pytest

from celery_memory_exporter.common.codec import REASONS
from celery_memory_exporter.fleet.own_counters import OwnCounters
from celery_memory_exporter.fleet.snapshot import SourceView


def test_refused_reports_are_received_ones_too() -> None:
    own = OwnCounters(max_groups=2)
    for refused in (None, "stale", "stale"):
        own.count_report(refused)
    assert own.reports_received == 3
    assert own.reports_rejected["stale"] == 2


def test_each_reason_is_zero_from_the_start() -> None:
    assert OwnCounters(max_groups=2).reports_rejected == dict.fromkeys(REASONS, 0)


def test_groups_of_events_beyond_the_limit_are_one() -> None:
    own = OwnCounters(max_groups=2)
    for group, lag in itertools.product(("task", "worker", "evil1", "evil2"), (None, 0.5)):
        own.count_event(group, lag)
    assert own.events_received == {"task": 2, "worker": 2, "other": 4}


def test_an_event_that_does_not_tell_its_age_leaves_the_last_one() -> None:
    own = OwnCounters(max_groups=2)
    own.count_event("task", 0.5)
    own.count_event("task", None)
    assert own.event_lag_seconds == pytest.approx(0.5)


def test_a_source_is_as_it_was_told_last() -> None:
    own = OwnCounters(max_groups=2)
    own.note_source("processes", up=False, duration=None, denied={})
    own.note_source("processes", up=True, duration=0.5, denied={"processes": True})
    assert own.sources == {"processes": SourceView(True, 0.5, {"processes": True})}
