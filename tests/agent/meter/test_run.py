"""What is kept of a run until it is over."""

from __future__ import annotations

import time

import pytest

from celery_memory_exporter.agent.meter.run import Run


def test_a_new_run_has_begun_and_is_nothing_yet() -> None:
    before = time.perf_counter()
    run = Run()
    assert before <= run.begun <= time.perf_counter()
    assert not any((run.opened, run.active, run.audited, run.deep, run.stashed))


def test_runs_are_told_apart_whatever_they_read() -> None:
    assert len({Run(), Run()}) == 2


def test_nothing_can_be_kept_with_a_run_but_what_is_named() -> None:
    with pytest.raises(AttributeError):
        Run().value = "of the task"  # type: ignore[attr-defined]
