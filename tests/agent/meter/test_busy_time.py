"""How long a process has been at work."""

from __future__ import annotations

import time

import pytest

from celery_memory_exporter.agent.meter.busy_time import LOOK_SECONDS, BusyTime
from celery_memory_exporter.agent.stats.budget import new_account


def test_it_is_what_runs_took_or_the_cpu_time_whichever_is_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "process_time", lambda: 2.0)
    busy = BusyTime(new_account())
    busy.seconds = 1.0
    assert busy.total(0.0) == 2.0
    busy.seconds = 3.0
    assert busy.total(0.0) == 3.0


def test_the_kernel_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = [1.0, 2.0]
    monkeypatch.setattr(time, "process_time", lambda: cpu.pop(0))
    busy = BusyTime(new_account())
    told = [busy.total(now) for now in (0.0, LOOK_SECONDS / 2, LOOK_SECONDS)]
    assert told == [1.0, 1.0, 2.0]


def test_a_successor_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "process_time", lambda: 2.0)
    account = new_account()
    for life in range(1, 4):
        assert BusyTime(account).total(0.0) == 2.0 * life
