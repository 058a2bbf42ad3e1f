"""What functions hold is found to grow: caches, default arguments, closures, attributes, tasks."""

from __future__ import annotations

import pytest

from celery_memory_exporter.agent.heap.containers import GrowingContainer
from tests.agent.conftest import Define
from tests.agent.heap.probing import counter, grown_after


def test_what_a_task_keeps_on_itself_is_found_behind_its_proxy(define: Define) -> None:
    shop = define(
        """
import celery
app = celery.Celery(set_as_current=False)
class Remembering(app.Task):
    def __init__(self):
        self.seen = []
@app.task(bind=True, base=Remembering)
def keep(self, value):
    self.seen.append(value)
"""
    )
    assert shop.keep.name, "as a worker asks for before any run"
    assert grown_after(lambda: shop.keep.run(1))["shop.keep.seen"].growth == 3


def test_a_function_among_its_own_defaults_is_no_error(define: Define) -> None:
    shop = define("HELD = []\ndef call(self=None): pass\ncall.__defaults__ = (call,)")
    assert grown_after(lambda: shop.HELD.append(1))["shop.HELD"].growth == 3


def test_an_unbounded_lru_cache_grows_without_a_limit(define: Define) -> None:
    shop = define("import functools\n@functools.lru_cache(maxsize=None)\ndef load(key): return key")
    key = counter()
    assert grown_after(lambda: shop.load(key()))["shop.load"] == GrowingContainer(
        "shop.load", "lru_cache", 3, 3, None
    )


def test_a_bounded_lru_cache_tells_its_limit(define: Define) -> None:
    shop = define(
        "import functools\nclass Store:\n    @staticmethod\n    @functools.lru_cache(maxsize=99)\n "
        "   def load(key): return key"
    )
    key = counter()
    assert grown_after(lambda: shop.Store.load(key()))["shop.Store.load"].capacity == 99


def test_what_a_cached_function_holds_is_found_behind_the_cache(define: Define) -> None:
    shop = define(
        "import functools\n@functools.lru_cache\ndef load(key, seen=[]): seen.append(key)"
    )
    key = counter()
    assert grown_after(lambda: shop.load(key()))["shop.load(seen=)"].growth == 3


@pytest.mark.parametrize(
    "signature", ["item, cache=[]", "item, one=1, cache=[]", "item, *, one=1, cache=[]"]
)
def test_a_default_argument_grows(define: Define, signature: str) -> None:
    shop = define(f"def load({signature}): cache.append(item)")
    assert grown_after(lambda: shop.load(1))["shop.load(cache=)"].growth == 3


@pytest.mark.parametrize("decorator", ["staticmethod", "classmethod"])
def test_a_methods_default_argument_grows(define: Define, decorator: str) -> None:
    shop = define(
        "class Shop:\n    def __init__(self, seen=[]): seen.append(1)\n"
        f"    @{decorator}\n    def load(*args, cache=[]): cache.append(1)"
    )
    assert grown_after(shop.Shop.load)["shop.Shop.load(cache=)"].growth == 3
    assert grown_after(shop.Shop)["shop.Shop.__init__(seen=)"].growth == 3


def test_a_propertys_default_argument_grows(define: Define) -> None:
    shop = define("class Shop:\n    @property\n    def price(self, seen=[]): seen.append(1)")
    instance = shop.Shop()
    assert grown_after(lambda: instance.price)["shop.Shop.price.fget(seen=)"].growth == 3


def test_a_closures_variable_grows(define: Define) -> None:
    shop = define(
        "def make():\n    seen = []\n    unbound: int\n    def add(item): seen.append(item)\n    "
        "return add\nadd = make()"
    )
    assert grown_after(lambda: shop.add(1))["shop.add.<closure>.seen"].growth == 3


def test_a_decorators_closure_is_found_behind_the_function_it_wraps(define: Define) -> None:
    shop = define(
        "import functools\n"
        "def memo(function):\n    known = {}\n    @functools.wraps(function)\n    def call(key):\n"
        "        return known.setdefault(key, key)\n    return call\n"
        "@memo\ndef load(key): return key"
    )
    key = counter()
    assert grown_after(lambda: shop.load(key()))["shop.load.<closure>.known"].growth == 3


def test_a_functions_attribute_grows(define: Define) -> None:
    shop = define("def load(): load.seen.append(1)\nload.seen = []")
    assert grown_after(shop.load)["shop.load.seen"].growth == 3
