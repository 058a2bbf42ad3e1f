"""Objects that outlive an audited run."""

from __future__ import annotations

import weakref

import pytest

from celery_memory_exporter.agent.stats import growth
from tests.agent.audit.harness import (
    ROOM,
    WARM,
    Thing,
    failing,
    keep,
    make_meter,
    returning,
    run,
    survivors_of,
)

pytestmark = pytest.mark.usefixtures("heap_as_it_was")


def test_survivors_are_exactly_what_was_kept() -> None:
    meter = make_meter()
    run(meter, returning(lambda: keep(2, Thing)), times=growth.WARM_RUNS_AT_LEAST + 10)
    assert survivors_of(meter) == {f"{Thing.__module__}.Thing": 20}, (
        "what start-up leaves is not told"
    )


def test_survivors_of_failing_runs_are_told_without_their_exceptions() -> None:
    meter = make_meter()
    run(meter, failing(lambda: keep(2, Thing)), times=growth.WARM_RUNS_AT_LEAST + 10)
    assert survivors_of(meter) == {f"{Thing.__module__}.Thing": 20}


def test_an_audit_keeps_nothing_alive() -> None:
    meter = make_meter()
    run(meter, returning(lambda: keep(1, Thing)), times=WARM)
    ghosts = [weakref.ref(thing) for thing in ROOM[:WARM]]
    assert all(ghost() is not None for ghost in ghosts)
    ROOM.clear()
    assert [ghost() for ghost in ghosts] == [None] * WARM
