"""What the code says that a container can hold: numbers that may be its limit, and none where
nobody takes anything out."""

from __future__ import annotations

from typing import Any

import pytest

from celery_memory_exporter.agent.heap.capacity import limits_of
from celery_memory_exporter.agent.heap.containers import Probe
from tests.agent.conftest import Define

FOREVER = 60.0


def limits(*steps: str) -> tuple[int, ...]:
    return limits_of("\0".join(("shop", *steps)))


def test_a_number_that_the_size_is_compared_with_is_a_limit(define: Define) -> None:
    define(
        """
HELD = {}
def put(key):
    HELD[key] = bytes(5000)
    while len(HELD) > 128:
        HELD.popitem()
"""
    )
    assert limits(".HELD") == (128,)


def test_a_constant_of_the_module_is_a_limit(define: Define) -> None:
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
    assert limits(".HELD") == (200,)


def test_a_heap_that_is_popped_is_bounded(define: Define) -> None:
    define(
        "from heapq import heappop\nHELD = []\ndef put(value):\n    if len(HELD) > 90:\n        "
        "heappop(HELD)"
    )
    assert limits(".HELD") == (90,)


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
    assert limits(".CACHE", ".entries") == limits(".CACHE", ".order") == (150,)
    shop.CACHE.size = 999
    assert 999 in limits(".CACHE", ".entries"), (
        "compared with: it may be one, as far as anybody can tell"
    )


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
    assert limits(".HELD") == (80,)


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
    assert limits(".call", "<held") == (64,)


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
    assert limits(".HELD") == (70,)


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
    assert limits(".HELD") == (), "a task that nobody has used yet"
    shop.app.finalize()
    assert shop.put.name
    assert limits(".HELD") == (30,)


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
def test_without_code_that_takes_out_by_size_there_is_no_limit(define: Define, code: str) -> None:
    define(f"HELD = []\n{code}")
    assert limits(".HELD") == ()


def test_what_is_gone_has_no_limit(define: Define) -> None:
    define("HELD = []")
    assert limits(".GONE", ".entries") == limits_of("gone\0.HELD") == ()


# --- as the probe tells it ----------------------------------------------------------------------


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
    return shop.HELD, lambda: next(row.limit for row in probe.rows() if row.path == "shop.HELD")


def test_a_limit_that_the_container_has_grown_past_is_none(full: Any) -> None:
    held, limit = full
    assert limit() == 10
    held[:] = range(10)
    assert limit() == 10
    held.append(10)
    assert limit() == 20
    held[:] = range(21)
    assert limit() is None
