"""The probe runs none of the application's code, whatever its objects define."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from celery_memory_exporter.agent.heap.containers import GrowingContainer
from tests.agent.conftest import Define
from tests.agent.heap.probing import grown_after


class HostileMeta(type):
    """Classes that must not be compared, hashed or asked."""

    def __eq__(cls, other: object) -> bool:
        raise AssertionError

    def __hash__(cls) -> int:
        raise AssertionError


def touched(*_: Any) -> Any:
    raise AssertionError("foreign code was run")


METHODS = (
    "__len__",
    "__eq__",
    "__hash__",
    "__iter__",
    "__getitem__",
    "__missing__",
    "__contains__",
    "__bool__",
    "items",
    "get",
)
HOSTILE = dict.fromkeys((*METHODS, "__getattr__", "__getattribute__"), touched) | {
    "__class__": property(touched)
}


@pytest.mark.parametrize(
    ("base", "grow"),
    [
        (dict, lambda found: dict.__setitem__(found, dict.__len__(found), 1)),
        (list, lambda found: list.append(found, 1)),
    ],
)
def test_a_subclasss_own_code_is_not_run(
    define: Define, base: type, grow: Callable[[Any], None]
) -> None:
    held = HostileMeta.__new__(HostileMeta, "Hostile", (base,), dict(HOSTILE))()
    object.__getattribute__(held, "__dict__")["nested"] = nested = []
    define(HELD=held)

    def both() -> None:
        grow(held)
        nested.append(1)

    grown = grown_after(both)
    assert grown["shop.HELD"] == GrowingContainer("shop.HELD", base.__name__, 3, 3, None)
    assert grown["shop.HELD.nested"].growth == 3


def test_a_lazy_proxy_stays_lazy(define: Define) -> None:
    proxy = HostileMeta.__new__(HostileMeta, "Proxy", (), {**HOSTILE, "__slots__": ("wrapped",)})()
    object.__setattr__(proxy, "wrapped", touched)
    define(PROXY=proxy, HELD=[proxy], KEYED={"a": proxy}, NUMBERED={1: proxy})
    grown_after(lambda: None)


def test_keys_are_not_compared(define: Define) -> None:
    class Key(str):
        __slots__ = ()
        armed = False

        def __eq__(self, other: object) -> bool:
            if self.armed:
                raise AssertionError
            return str.__eq__(self, other)

        def __hash__(self) -> int:
            if self.armed:
                raise AssertionError
            return str.__hash__(self)

    held = define(HELD={Key("a"): []}).HELD
    Key.armed = True
    assert "shop.HELD['a']" not in grown_after(lambda: [value.append(1) for value in held.values()])


def test_a_property_and_a_descriptor_are_not_asked(define: Define) -> None:
    define(
        "class Asked:\n    def __get__(self, *_): raise AssertionError\n"
        "class Store:\n    asked = Asked()\n    @property\n    def items(self): raise "
        "AssertionError\n"
        "    def __getattr__(self, name): raise AssertionError\nstore = "
        "Store()\nstore.__dict__['held'] = []"
    )
    grown_after(lambda: None)
