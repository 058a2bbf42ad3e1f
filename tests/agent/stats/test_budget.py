"""How much time the agent may spend."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.stats.budget import Account, Budget, Entry, new_account

SECONDS = st.floats(0, 1e6)


def test_a_budget_is_a_credit_and_a_share_of_busy_time() -> None:
    budget = Budget(0.01, 0.5)
    assert budget.left(0.0) == 0.5
    assert budget.left(10.0) == pytest.approx(0.6)


def test_what_took_longer_than_was_left_is_owed() -> None:
    budget = Budget(0.01, 0.5)
    budget.spend(0.75)
    assert budget.left(10.0) == pytest.approx(-0.15)
    assert budget.left(100.0) == pytest.approx(0.75)


def test_one_waits_until_what_is_owed_has_been_earned() -> None:
    budget = Budget(0.01, 0.5)
    assert budget.wait(0.0) == 0
    budget.spend(0.75)
    assert budget.wait(10.0) == pytest.approx(15.0)
    assert budget.wait(25.0 + 1e-6) == 0
    assert Budget(0.0, -1.0).wait(1e9) == math.inf


@pytest.mark.parametrize("shared", [False, True])
def test_a_successor_goes_on_with_what_was_spent(shared: bool) -> None:
    account: Account = new_account()
    if shared:
        account = memoryview(bytearray(8 * len(Entry))).cast("d")
    for number in range(1, 4):
        audits = Budget(0.01, 0.5, account, Entry.AUDITS)
        audits.spend(0.25)
        assert audits.spent == 0.25 * number
    assert Budget(0.01, 0.5, account, Entry.SAMPLES).spent == 0, "each has its own entry"


@given(SECONDS, SECONDS, SECONDS)
def test_spending_leaves_less_and_work_earns_more(spent: float, busy: float, more: float) -> None:
    budget = Budget(0.01, 0.5)
    before = budget.left(busy)
    budget.spend(spent)
    assert budget.left(busy) <= before
    assert budget.left(busy + more) >= budget.left(busy)
