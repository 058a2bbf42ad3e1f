"""The container probe finds what grows, and keeps nothing alive."""

from __future__ import annotations

import gc
import sys
import types
import weakref
from typing import Any

import pytest

from celery_memory_exporter.agent.heap.containers import Probe
from tests.agent.conftest import Define
from tests.agent.heap.probing import FOREVER, counter, grown_after

# --- growth -------------------------------------------------------------------------------------


def test_growth_counts_from_when_a_container_was_first_seen(define: Define) -> None:
    shop = define(OLD=[1, 2])
    probe = Probe()
    probe.work(FOREVER)
    shop.NEW = [1] * 10
    probe.work(FOREVER)
    shop.NEW.append(1)
    shop.OLD.append(1)
    probe.work(FOREVER)
    assert {
        each.path: each.growth for each in probe.containers() if each.path.startswith("shop.")
    } == {
        "shop.OLD": 1,
        "shop.NEW": 1,
    }


def test_only_what_grew_is_followed_and_the_greatest_growth_comes_first(define: Define) -> None:
    shop = define(STILL=[1] * 1000, SMALL=[], LARGE=[])
    probe = Probe()
    probe.work(FOREVER)
    assert (probe.walks, probe.sizes(), probe.containers()) == (1, {}, [])
    shop.SMALL.append(1)
    shop.LARGE.extend(range(10**6))
    probe.work(FOREVER)
    shown = [each.path for each in probe.containers()]
    assert shown[0] == "shop.LARGE"
    assert "shop.SMALL" in shown
    assert "shop.STILL" not in shown
    assert probe.walks == 2


def test_what_still_grows_goes_before_what_grew_once(define: Define) -> None:
    shop = define(ONCE=[], DRIP=[])
    probe = Probe(size=1)
    probe.work(FOREVER)
    shop.ONCE.extend(range(10**6))
    probe.work(FOREVER)
    assert list(probe.sizes()) == ["shop.ONCE"]
    shop.DRIP.extend(range(10**5))
    probe.work(FOREVER)
    assert list(probe.sizes()) == ["shop.DRIP"]


def test_what_is_followed_stays_while_it_grows(define: Define) -> None:
    shop = define(FIRST=[], LATER=[])
    probe = Probe(size=1)
    probe.work(FOREVER)
    shop.FIRST.extend(range(10**5))
    probe.work(FOREVER)
    shop.FIRST.append(1)
    shop.LATER.extend(range(10**6))
    probe.work(FOREVER)
    assert list(probe.sizes()) == ["shop.FIRST"]


def test_sizes_are_those_of_now(define: Define) -> None:
    held = define(HELD=[]).HELD
    probe = Probe()
    probe.work(FOREVER)
    held.append(1)
    probe.work(FOREVER)
    held.extend([1, 2])
    assert probe.sizes()["shop.HELD"] == 3


def test_a_module_deleted_between_walks_is_no_error(define: Define) -> None:
    held = define(HELD=[]).HELD
    probe = Probe()
    probe.work(FOREVER)
    held.append(1)
    probe.work(FOREVER)
    del sys.modules["shop"]
    assert "shop.HELD" not in probe.sizes()
    assert "shop.HELD" not in {each.path for each in probe.containers()}
    assert probe.work(FOREVER)


@pytest.mark.parametrize("module", [None, 7, object(), types.SimpleNamespace(items=[])])
def test_what_is_no_module_in_sys_modules_is_no_error(
    monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    monkeypatch.setitem(sys.modules, "shop", module)
    grown_after(lambda: None)


# --- how much a container can hold --------------------------------------------------------------


@pytest.fixture
def full(define: Define) -> Any:
    """A container that its code bounds at ten, followed by a probe."""
    shop = define(
        "HELD = []\ndef put(value):\n    if len(HELD) > 10 or len(HELD) > 20:\n        del HELD[:5]"
    )
    probe = Probe()
    probe.work(FOREVER)
    shop.HELD.append(0)
    probe.work(FOREVER)
    return shop.HELD, lambda: next(
        each.capacity for each in probe.containers() if each.path == "shop.HELD"
    )


def test_a_capacity_that_the_container_has_grown_past_is_none(full: Any) -> None:
    held, capacity = full
    assert capacity() == 10
    held[:] = range(10)
    assert capacity() == 10
    held.append(10)
    assert capacity() == 20
    held[:] = range(21)
    assert capacity() is None


# --- nothing is kept ----------------------------------------------------------------------------


def test_nothing_is_kept_alive(define: Define) -> None:
    shop = define(
        "class Store:\n    def __init__(self): self.items = [set()]\nSTORE = Store()\nHELD = {'a': "
        "Store()}"
    )
    probe = Probe()
    probe.work(FOREVER)
    shop.STORE.items.append(1)
    shop.HELD["a"].items.append(1)
    for _ in range(100):
        probe.work(0.0)
    probe.work(FOREVER)
    probe.sizes()
    probe.containers()
    references = [
        weakref.ref(shop.STORE),
        weakref.ref(shop.HELD["a"]),
        weakref.ref(shop.STORE.items[0]),
        weakref.ref(shop.Store),
    ]
    del shop.STORE, shop.Store
    shop.HELD.clear()
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


def test_the_agents_own_containers_are_left_out(define: Define) -> None:
    probe = Probe(size=200)
    define(probe=probe, items=[probe.work], held={"a": probe})
    name = counter()
    probe.work(FOREVER)
    for _ in range(3):
        define(name=name())
    probe.work(FOREVER)
    assert not [
        each
        for each in probe.containers()
        if "probe" in each.path or each.path.startswith(("celery_memory_exporter.", "shop."))
    ]


# --- caps and budgets ---------------------------------------------------------------------------


def test_a_walk_goes_on_over_many_calls(define: Define) -> None:
    held = define(HELD=[]).HELD
    probe = Probe()
    calls = 0
    while not probe.work(0.0):
        calls += 1
    assert calls > 100, "one object a call"
    held.append(1)
    while not probe.work(0.0):
        pass
    assert "shop.HELD" in probe.sizes()


def test_the_number_of_followed_containers_has_a_cap(define: Define) -> None:
    lists = vars(define(**{f"a{number}": [] for number in range(100)}))
    probe = Probe(size=5)
    probe.work(FOREVER)
    for number in range(100):
        lists[f"a{number}"].append(1)
    probe.work(FOREVER)
    assert len(probe.containers()) == len(probe.sizes()) == 5
