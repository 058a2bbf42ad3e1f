"""Objects of the application are read, and none of their code is run."""

from __future__ import annotations

import functools
import io
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import wrapt

from celery_memory_exporter.agent.heap import foreign
from celery_memory_exporter.agent.heap.foreign import (
    MAX_ENTRIES,
    MIN_IMMUTABLE_LENGTH,
    bases_of,
    has_attributes,
    is_class,
    is_own,
    is_plain,
    items_of,
    module_of,
    namespace_of,
)


def touched(*_: Any) -> Any:
    raise AssertionError("foreign code was run")


def hostile(*bases: type) -> Any:
    """A class that must not be asked for anything, nor its instances."""

    class Meta(type):
        __getattribute__ = touched
        __eq__ = touched
        __hash__ = touched  # type: ignore[assignment]

    return Meta.__new__(Meta, "Hostile", bases, {"__class__": property(touched), "held": 1})


class Slotted:
    __slots__ = ("held",)


# --- types --------------------------------------------------------------------------------------


def test_classes_are_told_past_what_an_object_claims() -> None:
    kind = hostile(dict)
    first, second, *_ = bases_of(dict.__new__(kind))
    assert first is kind
    assert second is dict


@pytest.mark.parametrize(
    ("found", "expected"), [(dict, True), (type, True), (Slotted, True), (7, False), ({}, False)]
)
def test_what_is_a_class(found: object, expected: bool) -> None:
    assert is_class(found) is expected


def test_a_hostile_class_is_a_class_of_its_module() -> None:
    kind = hostile()
    assert is_class(kind)
    assert not is_class(object.__new__(kind))
    assert module_of(kind) == __name__


def test_the_interpreters_own_types_say_no_module() -> None:
    assert module_of(dict) is None


# --- namespaces ---------------------------------------------------------------------------------


def test_the_namespace_of_an_object_a_class_and_a_module_is_the_real_one() -> None:
    module = types.ModuleType("shop")
    assert namespace_of(module) is vars(module)
    partial = functools.partial(print)
    assert namespace_of(partial) is vars(partial)
    assert namespace_of(hostile())["held"] == 1


def test_what_has_no_namespace_has_none() -> None:
    assert namespace_of(7) is None
    assert namespace_of(Slotted()) is None


def test_a_property_in_the_place_of_a_namespace_is_not_asked() -> None:
    class Lazy:
        __slots__ = ()
        __dict__ = property(touched)  # type: ignore[assignment]

    assert namespace_of(Lazy()) is None


def test_the_object_behind_a_proxy_is_not_asked() -> None:
    class Plain:
        """Has a namespace of Python's own."""

    class Both(Plain, wrapt.LazyObjectProxy):
        """Has that one first, which asks the proxy's."""

    class Behind:
        __slots__ = ()
        __dict__ = property(touched)  # type: ignore[assignment]

    for proxy in (wrapt.ObjectProxy(Behind()), wrapt.LazyObjectProxy(touched), Both(touched)):
        assert namespace_of(proxy) is None


def test_what_the_standard_library_has_in_c_is_read_like_the_rest() -> None:
    class Error(ValueError):
        """Has the namespace of a base in C."""

    for found in (Error(), functools.lru_cache(print), io.BytesIO(), OrderedDict(), hostile):
        found.held = 1  # type: ignore[attr-defined]
        assert namespace_of(found)["held"] == 1


def test_the_first_entries_of_a_mapping_are_read() -> None:
    assert items_of({"a": 1, 2: 3}) == [("a", 1), (2, 3)]
    assert len(items_of(dict.fromkeys(range(MAX_ENTRIES + 1)))) == MAX_ENTRIES
    assert ("held", 1) in items_of(namespace_of(hostile()))


def test_a_dicts_own_items_are_not_called() -> None:
    assert items_of(type("Odd", (dict,), {"items": touched, "__iter__": touched})(a=1)) == [
        ("a", 1)
    ]


def test_a_mapping_that_changes_meanwhile_is_read_as_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def change(*_: object) -> Any:
        raise RuntimeError("dictionary changed size during iteration")

    monkeypatch.setattr(foreign, "islice", change)
    assert items_of({"a": 1}) == []


# --- whose a module is --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("celery_memory_exporter", True),
        ("celery_memory_exporter.agent.heap.containers", True),
        ("celery_memory_exporter.demo.shop", False),
        ("celery_memory_exporter_plugin", False),
        ("shop", False),
        (None, False),
        (type("Odd", (str,), {"startswith": touched})("celery_memory_exporter"), False),
    ],
)
def test_the_demo_application_is_not_the_agent(name: object, expected: bool) -> None:
    assert is_own(name) is expected


# --- values that hold nothing -------------------------------------------------------------------


def with_keyword_default(*, seen: object = None) -> None: ...


def with_default(seen: list[int] = []) -> None: ...  # noqa: B006


def with_attribute() -> None: ...


with_attribute.seen = []  # type: ignore[attr-defined]


def in_closure(held: list[int]) -> Callable[[], list[int]]:
    return lambda: held


HOLDERS = {
    "long text": "x" * MIN_IMMUTABLE_LENGTH,
    "bytes": b"",
    "tuple": (),
    "list": [],
    "dict": {},
    "class": Slotted,
    "instance": Slotted(),
    "default": with_default,
    "keyword default": with_keyword_default,
    "attribute": with_attribute,
    "closure": in_closure([]),
}


@pytest.mark.parametrize("found", HOLDERS.values(), ids=HOLDERS.keys())
def test_what_may_hold_something(found: object) -> None:
    assert not is_plain(found)


def test_attributes_of_a_function_are_seen_without_making_any() -> None:
    for function in (with_default, with_keyword_default, in_closure([])):
        assert not has_attributes(function)
        assert not has_attributes(function), "nor are there any for having looked"
    assert has_attributes(with_attribute)
