"""Which runs are audited."""

from __future__ import annotations

import gc
import itertools
import threading

import pytest

from celery_memory_exporter.agent.audit.audit import (
    AUDITS_PER_STEP,
    CREDIT_SECONDS,
    MOST_OWED,
    SHARE,
    Auditor,
)
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.growth import AUDITS_BY_RIGHT, TaskProfile
from celery_memory_exporter.agent.stats.profile import WARM_AGE, Column
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.common.evidence import AGES
from tests.agent.audit.harness import answer, make_meter, returning, run

pytestmark = pytest.mark.usefixtures("heap_as_it_was")


def test_nothing_is_audited_beyond_the_budget() -> None:
    auditor = Auditor(Readings(), enabled=True)
    profile = TaskProfile()
    profile.begin()
    assert auditor.due(profile, 0, 1, 0.0)
    auditor.budget.spend(CREDIT_SECONDS)
    assert not auditor.due(TaskProfile(), 0, 1, 0.0)
    assert auditor.due(TaskProfile(), 0, 1, CREDIT_SECONDS / SHARE), (
        "a share of busy time comes on top"
    )


@pytest.mark.parametrize("says_nothing", [False, True])
def test_without_a_budget_each_age_past_start_up_has_a_few_audits_by_right(
    says_nothing: bool,
) -> None:
    meter = make_meter()
    meter.auditor.budget = Budget(0.0, 0.0)
    run(meter, returning((lambda: gc.collect(1)) if says_nothing else (lambda: None)), times=500)
    ages = AGES.index(320) + 1 - WARM_AGE
    by_age = meter.totals.growth["t", ""].row.ages(Column.AUDITED)[: WARM_AGE + ages]
    told = 0 if says_nothing else AUDITS_BY_RIGHT
    assert by_age == [0] * WARM_AGE + [told] * ages
    assert meter.auditor.discarded.total() == (AUDITS_BY_RIGHT - told) * ages


def test_audits_by_right_are_owed_and_end_where_too_much_is() -> None:
    auditor, profile = Auditor(Readings(), enabled=True), TaskProfile()
    profile.begin()
    auditor.budget.spend(CREDIT_SECONDS + MOST_OWED / 2)
    assert auditor.due(profile, WARM_AGE, 1, 0.0)
    auditor.budget.spend(MOST_OWED)
    assert not auditor.due(TaskProfile(), WARM_AGE, 1, 0.0)


def test_audits_are_on_the_budget() -> None:
    meter = make_meter()
    run(meter, returning(lambda: None))
    assert meter.auditor.budget.spent > 0


def test_when_the_budget_is_scarce_rare_types_go_first() -> None:
    auditor = Auditor(Readings(), enabled=True)
    rare, frequent = TaskProfile(), TaskProfile()
    for profile in (rare, frequent):
        profile.begin()
    frequent.audits, rare.audits, auditor.audits = 20, 2, 22
    auditor.budget.spend(0.95 * CREDIT_SECONDS)
    assert not auditor.due(rare, WARM_AGE - 1, 2, 0.0), "start-up tells less"
    assert auditor.due(rare, WARM_AGE, 2, 0.0)
    for _ in range(AUDITS_BY_RIGHT):
        assert frequent.take_right(WARM_AGE)
    assert not auditor.due(frequent, WARM_AGE, 2, 0.0)


def test_a_rare_type_is_audited_in_each_run_and_a_frequent_one_ever_more_seldom() -> None:
    meter = make_meter()
    trace = measured(meter, "t", returning(lambda: None))
    audited: list[int] = []
    while len(audited) < 4 * AUDITS_PER_STEP:
        before = meter.auditor.audits
        trace("uuid", (), {}, {})
        if meter.auditor.audits > before:
            audited.append(meter.runs)
    pauses = [later - earlier for earlier, later in itertools.pairwise(audited)]
    step = AUDITS_PER_STEP
    assert set(pauses[: step - 1]) == {1}
    for number in range(1, 4):
        # By chance, since a task may do in every second run what it undoes in the next.
        assert set(pauses[number * step + 1 : (number + 1) * step]) <= set(range(1, 2 * number + 2))
    assert len(set(pauses)) > 2


def test_an_audit_spends_nothing_while_it_waits_for_a_processor() -> None:
    """As on a crowded machine; here a callback of the collector lets it wait."""
    auditor, profile = Auditor(Readings(), enabled=True), TaskProfile()
    waiting = threading.Event()

    def wait(phase: str, _: dict[str, int]) -> None:
        waiting.wait(0.1 if phase == "start" else 0.0)

    gc.callbacks.append(wait)
    try:
        auditor.begin(profile)
        auditor.finish(profile, answer())
    finally:
        gc.callbacks.remove(wait)
    assert 0 < auditor.budget.spent < 0.1
