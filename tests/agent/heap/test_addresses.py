"""Addresses: from one string to what is there now, and as people write them."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.heap.addresses import (
    MAX_PATH_LENGTH,
    MISSING,
    STEPS,
    follow,
    readable,
    resolve,
    shortened,
    written,
)
from celery_memory_exporter.agent.heap.parts import SEPARATOR
from celery_memory_exporter.agent.heap.shapes import shape_of
from tests.agent.conftest import Define


def address(*steps: str) -> str:
    return SEPARATOR.join(("shop", *steps))


class Store:
    __slots__ = ("empty", "items")

    def __init__(self) -> None:
        self.items = [1]


def loading(held: list[int]) -> Any:
    def load(*, cache: list[int] = held) -> list[int]:
        return held

    return load


def things() -> dict[str, Any]:
    variable: contextvars.ContextVar[list[int]] = contextvars.ContextVar("variable")
    variable.set([1])
    local = threading.local()
    local.items = [2]
    return {
        "STORE": Store(),
        "HELD": {"a": [3], 7: ([4],)},
        "load": loading([5]),
        "VARIABLE": variable,
        "LOCAL": local,
    }


# --- what is there ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((".STORE", ".items"), [1]),
        ((".HELD", "[a"), [3]),
        ((".HELD", "#7", "#0"), [4]),
        ((".load", "(cache"), [5]),
        ((".load", "<held"), [5]),
        ((".VARIABLE", "="), [1]),
        ((".LOCAL", "@items"), [2]),
    ],
)
def test_each_kind_of_step_is_followed(
    define: Define, steps: tuple[str, ...], expected: object
) -> None:
    define(**things())
    assert resolve(address(*steps)) == expected


def test_an_address_is_of_what_is_there_now(define: Define) -> None:
    shop = define(HELD=[1])
    assert resolve(address(".HELD")) is shop.HELD
    shop.HELD = other = [2]
    assert resolve(address(".HELD")) is other
    del shop.HELD
    assert resolve(address(".HELD")) is MISSING


@pytest.mark.parametrize(
    "steps",
    [
        (".GONE",),
        (".GONE", ".items"),
        (".STORE", ".empty"),
        (".HELD", "[b"),
        (".HELD", "#8"),
        (".HELD", "#7", "#1"),
        (".load", "<gone"),
    ],
)
def test_where_nothing_is_there_is_nothing(define: Define, steps: tuple[str, ...]) -> None:
    define(**things())
    assert resolve(address(*steps)) is MISSING
    assert resolve(SEPARATOR.join(("no.such.module", *steps))) is MISSING


def test_loggers_are_followed_by_name_and_none_is_made() -> None:
    logger = logging.getLogger("shop.orders")
    assert follow(logging, "!shop.orders") is logger
    assert follow(logging, "!") is logging.root
    assert follow(logging, "!nobody.made.this") is MISSING
    assert "nobody.made.this" not in logging.root.manager.loggerDict


def test_a_dict_that_makes_what_is_missing_is_not_asked_to() -> None:
    held = type("Making", (dict,), {"__missing__": lambda self, key: [key]})()
    assert follow(held, "[a") is MISSING


def test_a_property_of_the_same_name_is_not_asked() -> None:
    class Asked:
        @property
        def items(self) -> list[int]:
            raise AssertionError("foreign code was run")

    assert follow(Asked(), ".items") is MISSING


def test_every_step_down_leads_back_to_the_same(define: Define) -> None:
    shop = define(**things())
    for name, found in things().items():
        setattr(shop, name, found)
        for parts in shape_of(type(found)).parts:
            for step, value in parts(found):
                assert resolve(address("." + name, step)) is value


@given(st.lists(st.sampled_from("".join(STEPS)), max_size=4), st.sampled_from(["a", "__dict__"]))
def test_an_address_that_leads_nowhere_is_no_error(letters: list[str], name: str) -> None:
    steps = [letter + ("7" if letter == "#" else name) for letter in letters]
    resolve(SEPARATOR.join(["celery.app.base", *steps]))
    assert resolve(SEPARATOR.join(["no.such.module", *steps])) is MISSING


# --- as people write it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((".STORE", ".items"), "shop.STORE.items"),
        ((".HELD", "[a", "#7"), "shop.HELD['a'][7]"),
        ((".load", "(cache"), "shop.load(cache=)"),
        ((".load", "<held"), "shop.load.<closure>.held"),
        ((".VARIABLE", "="), "shop.VARIABLE.get()"),
        ((".LOCAL", "@items"), "shop.LOCAL.items"),
        ((".keep", "~", ".seen"), "shop.keep.seen"),
        (("!shop.orders", ".handlers"), "shop.getLogger('shop.orders').handlers"),
        ((".load", ".__wrapped__", ".__func__", "(cache"), "shop.load(cache=)"),
    ],
)
def test_an_address_is_written_as_code(steps: tuple[str, ...], expected: str) -> None:
    assert readable(address(*steps)) == expected


@given(st.text(alphabet=st.characters(exclude_characters=SEPARATOR), max_size=50))
def test_any_key_can_be_shown(key: str) -> None:
    assert readable(address(".HELD", "[" + key)) == shortened(f"shop.HELD[{key!r}]")
    assert written("[" + key) == f"[{key!r}]"


@given(st.text(max_size=200))
def test_a_path_is_never_longer_than_a_label(path: str) -> None:
    assert len(shortened(path)) <= MAX_PATH_LENGTH
    assert shortened(path) == path or len(path) > MAX_PATH_LENGTH


def test_of_a_long_path_beginning_and_end_are_shown() -> None:
    path = "shop.first." + "x" * 200 + ".last"
    assert shortened(path).startswith("shop.first.")
    assert shortened(path).endswith(".last")
    assert "…" in shortened(path)
    assert len(shortened(path)) == MAX_PATH_LENGTH


def test_a_module_is_found_by_its_name_whatever_is_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "shop", types.SimpleNamespace(items=[1]))
    assert resolve(address(".items")) == [1]
