"""Where objects lead to, by steps."""

from __future__ import annotations

import sys
import threading
import types
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from celery.local import PromiseProxy

from celery_memory_exporter.agent.heap.parts import (
    MAX_FOLLOWED_ITEMS,
    MAX_KEY_LENGTH,
    MIN_NAMESPACE_LENGTH,
    attributes_in,
    function_parts,
    indexes,
    instance_parts,
    keys,
    local_parts,
    target_of,
)

SMALL = list(range(MAX_FOLLOWED_ITEMS))


def steps_of(kind: type, found: object, *, large: bool = False) -> dict[str, Any] | None:
    parts = instance_parts(kind, large=lambda _: large)
    return None if parts is None else dict(parts(found))


# --- namespaces, dicts, sequences ---------------------------------------------------------------


def test_the_names_of_a_namespace_are_attributes() -> None:
    namespace = {"items": [1], "__doc__": "left out", 7: "no name", "with\0separator": 1}
    assert dict(attributes_in(namespace)) == {".items": [1]}


def test_a_large_dict_of_names_is_a_container_itself() -> None:
    names = {f"a{number}": number for number in range(MIN_NAMESPACE_LENGTH)}
    assert dict(attributes_in(names))[".__dict__"] is names
    names.popitem()
    assert ".__dict__" not in dict(attributes_in(names))


def test_only_plain_strings_and_integers_are_keys() -> None:
    found = {"a": 1, 7: 2, "x" * (MAX_KEY_LENGTH + 1): 3, "a\0b": 4, sys.maxsize: 5, (1,): 6}
    found |= {type("Name", (str,), {})("b"): 7, True: 8}
    assert dict(keys(found)) == {"[a": 1, "#7": 2}


def test_the_values_of_a_large_container_are_data() -> None:
    assert len(dict(keys(dict.fromkeys(SMALL)))) == MAX_FOLLOWED_ITEMS
    assert dict(keys(dict.fromkeys([*SMALL, -1]))) == {}
    assert len(list(indexes(list)(SMALL))) == MAX_FOLLOWED_ITEMS
    assert list(indexes(list)([*SMALL, -1])) == []


@pytest.mark.parametrize("base", [list, tuple, deque])
def test_items_are_told_by_their_index(base: Any) -> None:
    assert dict(indexes(base)(base("ab"))) == {"#0": "a", "#1": "b"}


def test_a_deque_that_another_thread_changes_is_read_as_empty() -> None:
    def changing(found: Any) -> Any:
        raise RuntimeError("deque mutated during iteration")

    base = types.SimpleNamespace(__len__=len, __iter__=changing)
    assert list(indexes(base)(deque("ab"))) == []


# --- functions, thread-locals, proxies ----------------------------------------------------------


def closing_over(held: list[int]) -> Callable[[], list[int]]:
    def call() -> list[int]:
        return held or unbound

    if not held:
        unbound = held
    return call


def test_default_arguments_are_told_by_name() -> None:
    def load(one: int, two: object = "b", *more: int, three: object = "c") -> None: ...

    assert dict(function_parts(load)) == {"(two": "b", "(three": "c"}


def test_closure_variables_are_told_by_name_and_unbound_ones_left_out() -> None:
    assert dict(function_parts(closing_over([1]))) == {"<held": [1]}


def test_attributes_of_a_function_are_told() -> None:
    def load() -> None: ...

    assert dict(function_parts(load)) == {}
    load.seen = [1]  # type: ignore[attr-defined]
    assert dict(function_parts(load)) == {".seen": [1]}


def test_a_thread_local_tells_this_threads_attributes() -> None:
    local = threading.local()
    local.items = [1]
    assert dict(local_parts(local)) == {"@items": [1]}


def test_a_thread_local_with_an_init_of_its_own_is_left_alone() -> None:
    class Local(threading.local):
        def __init__(self) -> None:
            self.items = [1]

    assert dict(local_parts(Local())) == {}


def test_a_proxy_stands_for_nothing_until_it_is_used() -> None:
    proxy = PromiseProxy(lambda: 7)
    assert target_of(proxy) is None
    assert proxy + 0 == 7
    assert target_of(proxy) == 7


# --- instances ----------------------------------------------------------------------------------


class Store:
    """With attributes in its dict."""

    def __init__(self, held: object) -> None:
        self.name = "shop"
        self.held = held


class Slotted:
    __slots__ = ("empty", "held")


def test_attributes_in_dict_and_slots_are_told() -> None:
    class Both(Slotted):
        pass

    both = Both()
    both.held, both.more = [1], [2]  # type: ignore[attr-defined]
    assert steps_of(Both, both) == {".more": [2], ".held": [1]}


def test_an_empty_slot_has_nothing_to_give() -> None:
    assert steps_of(Slotted, Slotted()) == {}


def test_another_classs_slot_under_a_name_of_this_ones_has_nothing_to_give() -> None:
    class Borrowing:
        __slots__ = ("own",)
        held = Slotted.held  # type: ignore[misc]

    borrowing = Borrowing()
    borrowing.own = [1]
    assert steps_of(Borrowing, borrowing) == {".own": [1]}


def test_instances_that_can_have_no_attributes_have_no_parts() -> None:
    assert steps_of(int, 7) is None
    assert steps_of(type("Bare", (), {"__slots__": ()}), object()) is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="each instance has its dict from the start")
def test_of_an_instance_that_holds_plain_values_only_no_dict_is_asked_for() -> None:
    assert steps_of(Store, Store(7)) == {}


def test_of_an_instance_that_holds_something_all_attributes_are_told() -> None:
    assert steps_of(Store, Store([])) == {".name": "shop", ".held": []}


def test_a_large_instance_is_not_asked_what_it_holds() -> None:
    assert steps_of(Store, Store(7), large=True) == {".name": "shop", ".held": 7}


def test_what_a_wrapper_wraps_is_told() -> None:
    def load() -> None: ...

    steps = steps_of(staticmethod, staticmethod(load))
    assert steps is not None
    assert steps[".__func__"] is load
