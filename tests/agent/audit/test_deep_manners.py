"""Deep audits are few, leave tracing as they found it, and keep nothing."""

from __future__ import annotations

import sys
import tracemalloc
import weakref
from typing import Any

import pytest

from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.budget import Budget
from tests.agent.audit.harness import profile_of
from tests.agent.audit.leaky import LEAKS, Load, knows, make_meter, run_until


def test_a_task_that_keeps_nothing_is_not_looked_at_deeply(load: Load) -> None:
    leaky = load("""
        def run():
            return [object() for _ in range(100)]
    """)
    meter = make_meter()
    dossier = run_until(meter, leaky.run, lambda dossier: meter.runs >= 100)
    assert (dossier.audits, dossier.sites, dossier.holders, dossier.paths) == (0, {}, {}, {})
    assert meter.deep.probe.walks == 0


def test_tracing_is_left_as_it_was_found(load: Load) -> None:
    leaky = load(LEAKS)
    seen = set()

    def run() -> None:
        leaky.run()
        seen.add(tracemalloc.is_tracing())

    run_until(make_meter(), run, lambda dossier: dossier.audits >= 3)
    assert seen == {True, False}, "in some runs it was on"
    assert not tracemalloc.is_tracing()
    assert sys.gettrace() is None


def test_an_application_that_traces_by_itself_is_left_alone(load: Load) -> None:
    leaky = load(LEAKS)
    tracemalloc.start(3)
    try:
        dossier = run_until(make_meter(), leaky.run, lambda dossier: dossier.audits >= 2)
        assert tracemalloc.is_tracing()
        assert tracemalloc.get_traceback_limit() == 3
        assert tracemalloc.get_object_traceback(leaky.CARTS[0].items) is not None, (
            "its traces are still there"
        )
    finally:
        tracemalloc.stop()
    assert not knows(dossier, "bytes")


def test_an_application_that_begins_to_trace_within_a_traced_run_keeps_its_traces(
    load: Load,
) -> None:
    leaky = load(LEAKS)
    began: list[int] = []

    def run() -> None:
        leaky.run()
        if tracemalloc.is_tracing() and not began:
            tracemalloc.start(25)
            began.extend([len(leaky.CARTS), meter.runs])
            leaky.run()

    start = tracemalloc.start
    meter = make_meter()
    try:
        run_until(meter, run, lambda dossier: bool(began))
        assert tracemalloc.get_traceback_limit() == 25
        run_until(meter, run, lambda dossier: meter.runs >= began[1] + 100)
        assert tracemalloc.start is start
        assert tracemalloc.get_traceback_limit() == 25
        traced = leaky.CARTS[began[0]].items
        assert tracemalloc.get_object_traceback(traced) is not None, "its traces are still there"
    finally:
        tracemalloc.stop()


def test_an_application_may_stop_tracing_that_it_did_not_start(load: Load) -> None:
    leaky = load(LEAKS)
    meter = make_meter()

    def run() -> None:
        leaky.run()
        tracemalloc.stop()

    dossier = run_until(meter, run, lambda dossier: dossier.audits >= 3)
    assert meter.guard.errors == 0
    assert not knows(dossier, "bytes")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_tracing_ends_with_a_run_that_raises(load: Load, error: type[BaseException]) -> None:
    leaky = load(LEAKS)
    meter = make_meter()
    run_until(meter, leaky.run, lambda dossier: dossier.suspicion)
    traced = False

    def trace(*_: Any) -> Any:
        nonlocal traced
        traced = tracemalloc.is_tracing()
        raise error

    wrapped = measured(meter, "t", trace)
    for _ in range(100):
        with pytest.raises(error):
            wrapped("uuid", (), {}, {})
        assert not tracemalloc.is_tracing()
        if traced:
            break
    assert traced


def test_a_deep_audit_keeps_nothing_alive(load: Load) -> None:
    leaky = load(LEAKS)
    run_until(make_meter(), leaky.run, lambda dossier: dossier.audits >= 3 and dossier.holders)
    ghosts = [weakref.ref(cart) for cart in leaky.CARTS.values()]
    assert len(ghosts) > 100
    leaky.CARTS.clear()
    assert {ghost() for ghost in ghosts} == {None}


def test_deep_audits_are_on_a_budget_of_their_own(load: Load) -> None:
    leaky = load(LEAKS)
    meter = make_meter()
    dossier = run_until(meter, leaky.run, lambda dossier: dossier.audits >= 1)
    spent = meter.deep.budget.spent
    assert spent > 0
    meter.deep.budget = Budget(0.0, 0.0)
    runs, audits = meter.runs, meter.auditor.audits
    run_until(meter, leaky.run, lambda dossier: meter.runs >= runs + 50)
    assert dossier.audits == 1
    assert meter.auditor.audits > audits, "plain audits go on"


def test_plain_audits_go_on_beside_deep_ones(load: Load) -> None:
    leaky = load(LEAKS)
    meter = make_meter()
    run_until(meter, leaky.run, lambda dossier: dossier.suspicion)
    before = profile_of(meter).audits
    run_until(meter, leaky.run, lambda dossier: dossier.audits >= 3)
    assert profile_of(meter).audits > before


def test_a_type_that_allocates_too_much_to_list_is_not_traced_again(load: Load) -> None:
    """However little of it is more than before: to list what was allocated would take seconds."""
    module = load(
        """
        ROWS, HELD = [], []

        def refresh():
            ROWS[:] = [[number] for number in range(100_000)]
            HELD.append([{} for _ in range(20)])
        """
    )
    meter = make_meter()
    dossier = run_until(meter, module.refresh, lambda found: found.audits >= 3)
    assert dossier.too_large
    assert not knows(dossier, "bytes")
    assert not tracemalloc.is_tracing()
