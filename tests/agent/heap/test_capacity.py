"""What the code says that a container can hold: numbers that may be its capacity, and none where
nobody takes anything out."""

from __future__ import annotations

import pytest

from celery_memory_exporter.agent.heap.capacity import capacities_of
from tests.agent.conftest import Define


def capacities(*steps: str) -> tuple[int, ...]:
    return capacities_of("\0".join(("shop", *steps)))


def test_a_number_that_the_size_is_compared_with_is_a_capacity(define: Define) -> None:
    define(
        """
HELD = {}
def put(key):
    HELD[key] = bytes(5000)
    while len(HELD) > 128:
        HELD.popitem()
"""
    )
    assert capacities(".HELD") == (128,)


def test_a_constant_of_the_module_is_a_capacity(define: Define) -> None:
    define(
        """
MOST = 200
HELD = []
def put(value):
    HELD.append(value)
    if len(HELD) >= MOST:
        del HELD[0]
"""
    )
    assert capacities(".HELD") == (200,)


def test_a_heap_that_is_popped_is_bounded(define: Define) -> None:
    define(
        "from heapq import heappop\nHELD = []\ndef put(value):\n    if len(HELD) > 90:\n        "
        "heappop(HELD)"
    )
    assert capacities(".HELD") == (90,)


def test_an_attribute_called_a_limit_is_one_whichever_method_takes_out(define: Define) -> None:
    shop = define(
        """
class Cache:
    def __init__(self, maxsize):
        self.maxsize = maxsize
        self.size = 0
        self.entries, self.order = {}, []
    def put(self, key, value):
        maxsize = self.maxsize
        self.entries[key] = value
        self.order.append(key)
        self.size += 1
        while self.size > maxsize and self.timeout > 0:
            self.evict()
    def evict(self):
        if self.size > self.maxsize:
            self.entries.pop(self.order.pop(0))
            self.size -= 1
"""
    )
    shop.CACHE = shop.Cache(150)
    shop.CACHE.timeout = 3_600
    assert capacities(".CACHE", ".entries") == capacities(".CACHE", ".order") == (150,)
    shop.CACHE.size = 999
    assert 999 in capacities(".CACHE", ".entries"), (
        "compared with: it may be one, as far as anybody can tell"
    )


def test_one_method_asks_for_the_size_and_another_takes_out(define: Define) -> None:
    """As cachelib's ``SimpleCache``."""
    shop = define(
        """
class Store:
    def __init__(self):
        self._entries, self._names, self._threshold = {}, [], 500
    def _over_threshold(self):
        return len(self._entries) > self._threshold
    def check(self, name):
        if len(name) > 64:
            raise ValueError(name)
    def set(self, key, value):
        if self._over_threshold():
            self._entries.pop(next(iter(self._entries)))
        self._entries[key] = value
class Kept(dict):
    def is_full(self):
        return len(self) > 40
    def put(self, key, value):
        if self.is_full():
            self.clear()
        self[key] = value
"""
    )
    shop.STORE, shop.KEPT = shop.Store(), shop.Kept()
    assert capacities(".STORE", "._entries") == (500,)
    assert capacities(".STORE", "._names") == ()
    assert capacities(".KEPT") == (40,)


def test_a_capacity_in_a_slot_that_is_multiplied(define: Define) -> None:
    """As SQLAlchemy's ``LRUCache``, which is pruned when it has outgrown its capacity by a half."""
    shop = define(
        """
class Cache:
    __slots__ = ("capacity", "threshold", "data", "unset")
    def __init__(self):
        self.capacity, self.threshold, self.data = 100, 0.5, {}
    def put(self, key, value):
        self.data[key] = value
        while len(self.data) > self.capacity + self.capacity * self.threshold:
            for old in sorted(self.data)[self.capacity:]:
                del self.data[old]
"""
    )
    shop.CACHE = shop.Cache()
    assert capacities(".CACHE", ".data") == (100, 200)


def test_a_dict_of_a_class_that_takes_out_by_itself_is_bounded(define: Define) -> None:
    define(
        """
class Cache(dict):
    SIZE = 80
    def put(self, key):
        self[key] = 3600
        if len(self) > self.SIZE:
            self.pop(next(iter(self)))
HELD = Cache()
"""
    )
    assert capacities(".HELD") == (80,)


def test_a_closure_is_bounded_by_its_function(define: Define) -> None:
    define(
        """
def remembering(limit):
    held = {}
    def call(key):
        held[key] = key
        if len(held) > limit:
            held.clear()
    return call
call = remembering(64)
"""
    )
    assert capacities(".call", "<held") == (64,)


def test_what_a_decorator_wraps_is_read(define: Define) -> None:
    define(
        """
import functools
def logged(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)
    return call
HELD = []
class Views:
    @staticmethod
    @logged
    def put(value):
        HELD.append(value)
        if len(HELD) > 70:
            HELD.clear()
"""
    )
    assert capacities(".HELD") == (70,)


def test_the_body_of_a_task_is_read(define: Define) -> None:
    shop = define(
        """
import celery
app = celery.Celery(set_as_current=False)
HELD = []
@app.task
def put(value):
    HELD.append(value)
    if len(HELD) >= 30:
        HELD.clear()
"""
    )
    assert capacities(".HELD") == (), "a task that nobody has used yet"
    shop.app.finalize()
    assert shop.put.name
    assert capacities(".HELD") == (30,)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("def put(value): HELD.append(value)", id="nobody takes out"),
        pytest.param(
            "def put(value):\n    HELD.append(value)\n    if len(HELD) > 100: print('many')",
            id="a warning only",
        ),
        pytest.param(
            "def drop(now):\n    if HELD[0] < now - 3600: HELD.pop()", id="by age, not by size"
        ),
        pytest.param(
            "def put(n):\n    rows = [0] * 1000\n    HELD.append(rows[0])\n    n = len(rows)\n    "
            "rows.clear()\n    return n > 500",
            id="takes out of something else",
        ),
        pytest.param(
            "OTHER = []\ndef put():\n    if len(OTHER) > 99: OTHER.clear()", id="another container"
        ),
        pytest.param(
            "def put():\n    if len(HELD) > 3: HELD.clear()", id="a small number is a flag"
        ),
    ],
)
def test_without_code_that_takes_out_by_size_there_is_no_capacity(
    define: Define, code: str
) -> None:
    define(f"HELD = []\n{code}")
    assert capacities(".HELD") == ()


def test_what_is_gone_has_no_capacity(define: Define) -> None:
    define("HELD = []")
    assert capacities(".GONE", ".entries") == capacities_of("gone\0.HELD") == ()
