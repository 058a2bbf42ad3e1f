"""How the instances of each type are told apart and measured."""

from __future__ import annotations

import array
import contextvars
import functools
import io
import logging
import queue
import threading
import types
from collections import OrderedDict, defaultdict, deque
from typing import Any

import pytest

from celery_memory_exporter.agent.heap.addresses import resolve
from celery_memory_exporter.agent.heap.foreign import MIN_IMMUTABLE_LENGTH, PACKAGE
from celery_memory_exporter.agent.heap.shapes import LEAF, known_shape, measure, shape_of


class Store:
    def __init__(self) -> None:
        self.items = [1, 2]


@functools.lru_cache(maxsize=9)
def load(key: int) -> int:
    return key


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "kind", "size"),
    [
        ({1: 2}, "dict", 1),
        (OrderedDict(a=1), "dict", 1),
        (defaultdict(list, a=1), "dict", 1),
        ([1, 2], "list", 2),
        ({1}, "set", 1),
        (bytearray(3), "bytearray", 3),
        (array.array("d", [1, 2]), "array", 2),
        ((1, 2), "tuple", 2),
        ("text", "str", 4),
        (b"text", "bytes", 4),
        (frozenset("ab"), "frozenset", 2),
        (deque([1, 2, 3]), "deque", 3),
        (io.StringIO(), "StringIO", 0),
    ],
)
def test_a_container_is_told_by_its_base_type_and_measured(
    found: object, kind: str, size: int
) -> None:
    assert (known_shape(found).kind, measure(found)) == (kind, size)


def test_a_queue_a_text_buffer_and_a_cache_are_measured() -> None:
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    waiting.put(1)
    text = io.StringIO()
    text.write("four")
    load.cache_clear()
    load(1)
    assert (measure(waiting), measure(text), measure(load)) == (1, 4, 1)


def test_a_buffer_is_measured_by_what_it_allocates() -> None:
    buffer = io.BytesIO()
    assert measure(buffer) == 0
    buffer.write(bytes(1_000))
    assert 1_000 <= (measure(buffer) or 0) < 2_000


@pytest.mark.parametrize("found", [7, None, print, object(), Store, Store(), threading.local()])
def test_what_holds_no_items_has_no_size(found: object) -> None:
    assert measure(found) is None


def test_a_closed_text_buffer_has_no_size() -> None:
    text = io.StringIO()
    text.close()
    assert measure(text) is None


def test_short_texts_and_tuples_are_constants() -> None:
    for found in ("", b"", (), frozenset()):
        assert known_shape(found).least == MIN_IMMUTABLE_LENGTH
    for grown in ({}, [], set(), bytearray()):
        assert known_shape(grown).least == 0


# --- what is told by construction ---------------------------------------------------------------


def test_a_deque_and_a_cache_tell_their_capacity() -> None:
    def capacity_of(found: Any) -> int | None:
        capacity = known_shape(found).capacity
        assert capacity is not None
        return capacity(found)

    assert (capacity_of(deque(maxlen=5)), capacity_of(deque())) == (5, None)
    assert (capacity_of(load), capacity_of(functools.lru_cache(None)(len))) == (9, None)
    assert known_shape({}).capacity is None


def home_of(found: Any) -> Any:
    home = known_shape(found).home
    assert home is not None
    return home(found)


def test_functions_caches_classes_and_loggers_have_a_home() -> None:
    assert home_of(home_of) == home_of(load) == home_of(Store) == __name__
    assert home_of(logging.getLogger("shop")) == "logging"


def test_what_was_made_within_a_function_is_at_home_wherever_it_is_found() -> None:
    def local() -> None: ...

    assert home_of(local) is None
    assert home_of(functools.lru_cache(local)) is None


def test_the_agents_own_functions_are_at_home_in_this_package() -> None:
    assert home_of(resolve) == PACKAGE


# --- what is below ------------------------------------------------------------------------------


def steps_below(found: Any) -> dict[str, Any]:
    return {step: value for parts in shape_of(type(found)).parts for step, value in parts(found)}


def test_an_instance_leads_to_its_attributes() -> None:
    assert steps_below(Store()) == {".items": [1, 2]}


def test_a_subclass_of_a_container_leads_to_items_and_attributes() -> None:
    held = type("Held", (dict,), {})(a=[1])
    held.more = [2]
    assert steps_below(held) == {"[a": [1], ".more": [2]}


def test_a_variable_leads_to_its_value() -> None:
    variable: contextvars.ContextVar[list[int]] = contextvars.ContextVar("variable")
    assert steps_below(variable) == {"=": None}
    variable.set([1])
    assert steps_below(variable) == {"=": [1]}


def test_a_class_leads_to_its_own_attributes() -> None:
    held = type("Held", (), {"items": [1]})
    assert steps_below(held)[".items"] == [1]


@pytest.mark.parametrize("kind", [types.ModuleType, ValueError, int])
def test_modules_exceptions_and_numbers_lead_nowhere(kind: type) -> None:
    assert shape_of(kind) is LEAF or shape_of(kind).parts == ()


def test_the_agents_own_instances_are_not_looked_into() -> None:
    from celery_memory_exporter.agent.heap.containers import Probe

    assert shape_of(Probe) is LEAF
