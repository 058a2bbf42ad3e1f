"""Live memory read at both ends of a run that is not audited."""

from __future__ import annotations

import gc

from celery_memory_exporter.agent.meter.run import Run
from celery_memory_exporter.agent.meter.sampling import Sampler
from celery_memory_exporter.agent.stats.readings import Readings

KEPT: list[object] = []


def test_what_is_kept_between_the_readings_shows() -> None:
    sampler, run = Sampler(Readings()), Run()
    KEPT.extend([None] * 100)
    gc.disable()
    try:
        sampler.begin(run)
        KEPT[:] = [object() for _ in KEPT]
        blocks, native, freed = sampler.finish(run)
    finally:
        gc.enable()
        KEPT.clear()
    assert 90 <= blocks - run.blocks <= 120
    assert native is None or run.native is not None
    assert not freed


def test_a_collection_that_frees_something_is_told() -> None:
    sampler, run = Sampler(Readings()), Run()
    cycle: list[object] = []
    cycle.append(cycle)
    sampler.begin(run)
    del cycle
    gc.collect()
    assert sampler.finish(run)[2]


def test_each_reading_is_paid_for() -> None:
    sampler, run = Sampler(Readings()), Run()
    spent = []
    for _ in range(3):
        sampler.begin(run)
        sampler.finish(run)
        spent.append(sampler.budget.spent)
    assert 0 < spent[0] < spent[1] < spent[2]
