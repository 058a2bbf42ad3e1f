"""What children need not make for themselves."""

from __future__ import annotations

import pytest

from celery_memory_exporter.agent.meter.books import Bias
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.worker.inheritance import Inheritance
from tests.agent.worker.pipe import Pipe


@pytest.mark.parametrize("limit", [None, 50_000_000])
def test_runs_of_children_are_measured_as_the_settings_say(limit: int | None) -> None:
    settings = Settings(max_tasks=7, audits=False)
    conditions = Inheritance.of(Pipe().channel, settings, Readings(), limit).conditions
    assert (conditions.max_tasks, conditions.audits) == (7, False)
    assert (conditions.pickles_failures, conditions.peak_limit_bytes) == (True, limit)


def test_the_meters_own_share_is_known_before_the_fork() -> None:
    biases = Inheritance.of(Pipe().channel, Settings(), Readings(), None).biases
    assert Bias() not in (biases.sample, biases.audit, biases.failed)
