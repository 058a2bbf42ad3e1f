"""One walk over the modules: in which order, how far, and how little it holds."""

from __future__ import annotations

import gc
import json
import logging
import sys
import types
import weakref

import hypothesis
import pytest

from celery_memory_exporter.agent.heap import walk as walking
from celery_memory_exporter.agent.heap.walk import MAX_NODES, Rank, Walk, rank_of
from tests.agent.conftest import Define


def finish(walk: Walk) -> set[str]:
    """The modules that the rest of the walk enters."""
    entered = set()
    while walk.step():
        entered.add(walk.module)
    walk.release()
    return entered


def step_into(walk: Walk, module: str) -> None:
    while walk.module != module:
        assert walk.step()
        walk.release()


# --- which modules ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "rank"),
    [
        ("sys", sys, Rank.SYS),
        ("__main__", sys.modules["__main__"], Rank.APPLICATION),
        ("shop", types.ModuleType("shop"), Rank.APPLICATION),
        ("tests.agent.heap.test_walk", sys.modules[__name__], Rank.APPLICATION),
        ("logging", logging, Rank.LOGGERS),
        ("hypothesis", hypothesis, Rank.PACKAGE),
        ("json", json, Rank.LIBRARY),
        ("time", sys.modules["time"], Rank.LIBRARY),
        ("json.of_no_file", types.ModuleType("json.of_no_file"), Rank.LIBRARY),
        ("odd", None, Rank.APPLICATION),
        ("odd", types.SimpleNamespace(__file__=7), Rank.APPLICATION),
    ],
)
def test_whose_a_module_is(name: str, module: object, rank: Rank) -> None:
    assert rank_of(name, module) is rank


def test_a_quick_walk_enters_the_applications_modules_only(define: Define) -> None:
    define(HELD=[])
    entered = finish(Walk({}, Rank.LOGGERS))
    assert {"sys", "shop", "logging", __name__} <= entered
    assert not {"json", "hypothesis"} & entered


def test_a_full_walk_enters_all_but_the_agents_own() -> None:
    entered = finish(Walk({}, Rank.LIBRARY))
    assert {"json", "hypothesis", __name__} <= entered
    assert not [name for name in entered if name.startswith("celery_memory_exporter.agent")]


def test_the_application_comes_before_what_it_uses(define: Define) -> None:
    define(HELD=[])
    walk = Walk({}, Rank.LIBRARY)
    step_into(walk, "shop")
    assert finish(walk) >= {"logging", "hypothesis", "json"}


def test_a_module_that_is_gone_before_its_turn_is_no_error(define: Define) -> None:
    define(HELD=[])
    walk = Walk({}, Rank.APPLICATION)
    del sys.modules["shop"]
    assert "shop" not in finish(walk)


# --- what it notes ------------------------------------------------------------------------------


def test_a_first_walk_finds_no_growth(define: Define) -> None:
    define(HELD=[1, 2])
    walk = Walk({}, Rank.APPLICATION)
    finish(walk)
    assert walk.sizes[hash("shop\0.HELD")] == 2
    assert walk.grown == {}


def test_growth_is_told_against_the_size_when_first_seen(define: Define) -> None:
    shop = define(HELD=[1, 2], STILL=[1])
    first = Walk({}, Rank.APPLICATION)
    finish(first)
    shop.HELD.append(3)
    second = Walk(first.sizes, Rank.APPLICATION)
    finish(second)
    assert second.grown["shop\0.HELD"] == (3, 2)
    assert "shop\0.STILL" not in second.grown
    assert second.sizes[hash("shop\0.HELD")] == 2, "as when first seen"


# --- what it holds ------------------------------------------------------------------------------


def test_nothing_is_held_after_a_release(define: Define) -> None:
    class Store:
        pass

    held = [Store() for _ in range(50)]
    ghosts = [weakref.ref(store) for store in held]
    shop = define(**{f"a{number}": store for number, store in enumerate(held)})
    for ghost in ghosts:
        vars(ghost())["items"] = []
    walk = Walk({}, Rank.APPLICATION)
    step_into(walk, "shop")
    vars(shop).clear()
    held.clear()
    gc.collect()
    assert {ghost() for ghost in ghosts} == {None}
    finish(walk)


def test_a_walk_goes_on_by_address_after_a_release(define: Define) -> None:
    shop = define("class Store:\n    def __init__(self): self.items = [1, 2, 3]\nSTORE = Store()")
    walk = Walk({}, Rank.APPLICATION)
    step_into(walk, "shop")
    finish(walk)
    assert walk.sizes[hash("shop\0.STORE\0.items")] == len(shop.STORE.items)


def test_addresses_have_a_cap(define: Define, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_ADDRESSES", 10)
    define(**{f"a{number}": [] for number in range(100)})
    walk = Walk({}, Rank.APPLICATION)
    finish(walk)
    assert len(walk.sizes) == 10


def test_what_grew_has_a_cap(define: Define, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_GROWN", 10)
    define(**{f"a{number}": [1] for number in range(100)})
    first = {hash(f"shop\0.a{number}"): 0 for number in range(100)}
    walk = Walk(first, Rank.APPLICATION)
    finish(walk)
    assert len(walk.grown) == 10


def test_one_module_cannot_take_the_whole_walk(define: Define) -> None:
    rooms = {f"room{room}": {str(number): [] for number in range(60)} for room in range(100)}
    define(**rooms)
    walk = Walk({}, Rank.LOGGERS)
    step_into(walk, "shop")
    nodes = 0
    while walk.module == "shop":
        nodes = walk.nodes
        walk.step()
    assert nodes == MAX_NODES < 60 * 100
    assert "logging" in {walk.module, *finish(walk)}
