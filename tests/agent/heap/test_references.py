"""The path from a module to what a task left behind."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import pytest

from celery_memory_exporter.agent.heap.addresses import MAX_PATH_LENGTH
from celery_memory_exporter.agent.heap.containers import Probe
from celery_memory_exporter.agent.heap.references import held_by_c_code, path_to_module
from tests.agent.conftest import Define

#: No search here takes so long.
LONG = 60.0


pytest.importorskip("objgraph")


class Node:
    """What is left behind."""

    def __init__(self, below: Any = None) -> None:
        self.next = below


def test_a_linked_list_at_a_class_has_one_path_for_all_its_nodes(define: Define) -> None:
    shop = define("class Stack:\n    head = None")
    nodes = []
    for _ in range(4):
        shop.Stack.head = Node(shop.Stack.head)
        nodes.append(weakref.ref(shop.Stack.head))
    vars(shop)["__name__"] = "shop"
    shop.Stack.__module__ = "shop"
    assert path_to_module([nodes[3]()], LONG) == "shop.Stack.head"
    assert {path_to_module([node()], LONG) for node in nodes[:3]} == {"shop.Stack.head.next"}


@pytest.mark.parametrize(
    "hold",
    [
        lambda node: [node],
        lambda node: {"key": node},
        lambda node: {"key": [node]},
        lambda node: OrderedDict(key=node),
        lambda node: deque([node]),
        lambda node: {node},
        lambda node: ([{"key": node}],),
    ],
)
def test_keys_and_nesting_are_left_out(define: Define, hold: Callable[[Node], Any]) -> None:
    node = Node()
    define(_registry=hold(node))
    assert path_to_module([node], LONG) == "shop._registry[...]"


def test_an_attribute_of_a_held_instance_is_named(define: Define) -> None:
    node = Node()
    define(_registry={"a": Node(node)})
    assert path_to_module([node], LONG) == "shop._registry[...].next"


def test_a_slot_is_named(define: Define) -> None:
    class Slotted:
        __slots__ = ("kept",)

    node, slotted = Node(), Slotted()
    slotted.kept = node
    define(STORE=slotted)
    assert path_to_module([node], LONG) == "shop.STORE.kept"


def test_a_closure_is_named_by_its_variable(define: Define) -> None:
    shop = define(
        "def make():\n    kept = []\n    return lambda item: kept.append(item)\nadd = make()"
    )
    node = Node()
    shop.add(node)
    assert path_to_module([node], LONG) == "shop.add.<closure>.kept[...]"


def test_a_default_argument_is_named(define: Define) -> None:
    shop = define("def add(item, *, kept=[]): kept.append(item)")
    node = Node()
    shop.add(node)
    assert path_to_module([node], LONG) == "shop.add(kept=)[...]"


def test_an_lru_cache_is_named_by_its_function(define: Define) -> None:
    shop = define(load=functools.lru_cache(lambda key: Node()))
    path = path_to_module([shop.load(1)], LONG)
    assert path is not None
    assert path.startswith("shop.load[...]")


def test_what_nobody_holds_has_no_path() -> None:
    assert path_to_module([Node()], LONG) is None
    assert path_to_module([], LONG) is None


def test_callers_and_their_lists_are_no_holders() -> None:
    def caller() -> str | None:
        survivors = [Node() for _ in range(3)]
        return path_to_module(survivors, LONG)

    assert caller() is None


def test_the_next_candidate_is_tried(define: Define) -> None:
    node = Node()
    define(HELD=[node])
    assert path_to_module([Node(), node], LONG) == "shop.HELD[...]"


def test_the_agent_is_never_the_holder(define: Define) -> None:
    node = Node()
    probe = Probe()
    probe.__dict__["kept"] = [node]
    define(agent=probe)
    assert path_to_module([node], LONG) is None
    define(name="zoo", very=[[[[[node]]]]])
    assert path_to_module([node], LONG) == "zoo.very[...]"


def test_no_time_is_no_answer(define: Define) -> None:
    node = Node()
    define(HELD=[node])
    assert path_to_module([node], 0.0) is None


def test_nothing_is_kept_alive(define: Define) -> None:
    for seconds in (LONG, 0.0):
        node = Node()
        shop = define(HELD=[node])
        path_to_module([node], seconds)
        reference = weakref.ref(node)
        shop.HELD.clear()
        del node
        gc.collect()
        assert reference() is None


def test_without_objgraph_there_is_no_answer(
    define: Define, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node()
    define(HELD=[node])
    monkeypatch.setitem(sys.modules, "objgraph", None)
    assert path_to_module([node], LONG) is None


def test_a_lazy_proxy_on_the_way_stays_lazy(define: Define) -> None:
    def touched(*_: Any) -> Any:
        raise AssertionError("foreign code was run")

    names = (
        "__len__",
        "__eq__",
        "__hash__",
        "__iter__",
        "__bool__",
        "__getattr__",
        "__getattribute__",
    )
    hostile = type(
        "Hostile", (), dict.fromkeys(names, touched) | {"__class__": property(touched)}
    )()
    node = Node()
    object.__setattr__(hostile, "kept", node)
    define(PROXY=hostile)
    assert path_to_module([node], LONG) == "shop.PROXY.kept"


def test_a_path_fits_a_label(define: Define) -> None:
    node = Node()
    define(**{"a" * 500: [node]})
    path = path_to_module([node], LONG)
    assert path is not None
    assert len(path) == MAX_PATH_LENGTH


def test_a_class_in_place_of_a_module_is_no_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shop", Node)
    assert path_to_module([Node()], LONG) is None


# --- C code -------------------------------------------------------------------------------------


def increment(found: object, by: int) -> None:
    count = ctypes.pythonapi.Py_IncRef if by > 0 else ctypes.pythonapi.Py_DecRef
    count(ctypes.py_object(found))


@pytest.mark.parametrize("cycle", [False, True])
def test_what_no_object_refers_to_is_held_by_c_code(cycle: bool) -> None:
    candidates: list[object] = [Node(), Node()]
    if cycle:
        candidates[1].next = candidates[1]  # type: ignore[attr-defined]
    increment(candidates[1], 1)
    try:
        assert held_by_c_code(candidates) == f"C code (no object refers to {__name__}.Node)"
    finally:
        increment(candidates[1], -1)


@pytest.mark.parametrize("hold", [lambda node: [node], Node])
def test_what_an_object_refers_to_is_not(hold: Callable[[Node], Any]) -> None:
    candidates: list[object] = [Node()]
    held = hold(candidates[0])  # type: ignore[arg-type]
    assert held_by_c_code(candidates) is None
    assert held is not None


def test_what_nobody_holds_is_not() -> None:
    assert held_by_c_code([]) is None
    assert held_by_c_code([Node(), Node()]) is None


def test_where_objects_are_frozen_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates: list[object] = [Node()]
    increment(candidates[0], 1)
    monkeypatch.setattr(gc, "get_freeze_count", lambda: 100_000)
    try:
        assert held_by_c_code(candidates) is None
    finally:
        increment(candidates[0], -1)
