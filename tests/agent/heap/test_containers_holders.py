"""Which objects are found to grow, wherever they are held."""

from __future__ import annotations

import array
import contextvars
import functools
import io
import logging
import queue
import threading
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import pytest

from celery_memory_exporter.agent.heap.containers import GrowingContainer
from tests.agent.conftest import Define
from tests.agent.heap.probing import counter, grown_after


@pytest.mark.parametrize(
    ("value", "grow", "kind"),
    [
        ({}, lambda found: found.__setitem__(str(len(found)), "v"), "dict"),
        ([], lambda found: found.append("v"), "list"),
        (set(), lambda found: found.add(len(found)), "set"),
        (bytearray(), lambda found: found.append(1), "bytearray"),
        (array.array("d"), lambda found: found.append(1.0), "array"),
        (OrderedDict(), lambda found: found.__setitem__(str(len(found)), "v"), "dict"),
        (defaultdict(list), lambda found: found[str(len(found))], "dict"),
        (queue.SimpleQueue(), lambda found: found.put("v"), "SimpleQueue"),
        (io.StringIO(), lambda found: found.write("v"), "StringIO"),
    ],
)
def test_a_container_of_a_module_grows(
    define: Define, value: Any, grow: Callable[[Any], None], kind: str
) -> None:
    define(HELD=value)
    assert grown_after(lambda: grow(value))["shop.HELD"] == GrowingContainer(
        "shop.HELD", kind, 3, 3, None
    )


def test_a_buffer_grows_by_what_it_allocates(define: Define) -> None:
    buffer = define(BUFFER=io.BytesIO()).BUFFER
    assert grown_after(lambda: buffer.write(b"v" * 1000))["shop.BUFFER"].growth >= 3000


def test_a_closed_buffer_is_no_error(define: Define) -> None:
    shop = define(BYTES=io.BytesIO(), TEXT=io.StringIO())
    shop.BYTES.close()
    shop.TEXT.close()
    assert not {"shop.BYTES", "shop.TEXT"} & grown_after(lambda: None).keys()


@pytest.mark.parametrize("piece", ["line\n" * 100, b"line\n" * 100, ("line",) * 500])
def test_a_text_that_is_added_to_grows(define: Define, piece: Any) -> None:
    shop = define(LOG=piece)

    def grow() -> None:
        shop.LOG += piece

    assert grown_after(grow)["shop.LOG"] == GrowingContainer(
        "shop.LOG", type(piece).__name__, 2000, 1500, None
    )


def test_a_class_attribute_grows(define: Define) -> None:
    shop = define("class Registry:\n    items = []\n    class Inner:\n        seen = set()")
    assert grown_after(lambda: shop.Registry.items.append(1))["shop.Registry.items"].growth == 3
    add = counter()
    assert (
        grown_after(lambda: shop.Registry.Inner.seen.add(add()))["shop.Registry.Inner.seen"].growth
        == 3
    )


def test_a_class_of_another_module_is_named_by_its_own(define: Define) -> None:
    shop = define("class Registry:\n    items = []", name="zz_origin")
    define(name="aa_importer", Registry=shop.Registry)
    grown = grown_after(lambda: shop.Registry.items.append(1))
    assert [path for path in grown if path.endswith(".items")] == ["zz_origin.Registry.items"]


def test_a_slot_of_another_class_is_no_error(define: Define) -> None:
    shop = define(
        """
class Cart:
    __slots__ = ("items",)
class Wish:
    __slots__ = ("held",)
    items = Cart.items
WISH = Wish()
WISH.held = []
"""
    )
    assert grown_after(lambda: shop.WISH.held.append(1))["shop.WISH.held"].growth == 3


def test_instances_are_looked_into_four_attributes_deep(define: Define) -> None:
    shop = define(
        "class Node:\n    def __init__(self, below):\n        self.items = []\n        self.below "
        "= below\nroot = None"
    )
    lists = []
    for _ in range(6):
        shop.root = shop.Node(shop.root)
        lists.append(shop.root.items)
    grown = grown_after(lambda: [items.append(1) for items in lists])
    found = {path for path in grown if path.startswith("shop.")}
    assert found == {"shop.root" + ".below" * depth + ".items" for depth in range(4)}


def test_slots_are_looked_into(define: Define) -> None:
    shop = define(
        "class Store:\n    __slots__ = ('items', 'empty')\n    def __init__(self): self.items = "
        "[]\nstore = Store()"
    )
    assert grown_after(lambda: shop.store.items.append(1))["shop.store.items"].growth == 3


def test_an_instance_that_gets_ever_more_attributes_grows(define: Define) -> None:
    shop = define("class Store: pass\nstore = Store()")
    vars(shop.store).update({f"a{number}": [] for number in range(100)})
    name = counter()
    assert grown_after(lambda: setattr(shop.store, name(), 1))["shop.store.__dict__"].growth == 3


def test_a_thread_local_grows(define: Define) -> None:
    local = define(LOCAL=threading.local()).LOCAL
    local.items = []
    assert grown_after(lambda: local.items.append(1))["shop.LOCAL.items"].growth == 3


def test_a_thread_local_that_would_run_its_own_code_is_left_alone(define: Define) -> None:
    shop = define(
        "import threading\nruns = [0]\nclass Local(threading.local):\n    def __init__(self): "
        "runs[0] += 1\n"
    )
    made = []
    thread = threading.Thread(target=lambda: made.append(shop.Local()))
    thread.start()
    thread.join()
    shop.LOCAL = made.pop()
    grown_after(lambda: None)
    assert shop.runs == [1]


def test_a_context_variables_value_grows(define: Define) -> None:
    variable: contextvars.ContextVar[list[int]] = define(
        VARIABLE=contextvars.ContextVar("VARIABLE")
    ).VARIABLE
    variable.set([])
    assert grown_after(lambda: variable.get().append(1))["shop.VARIABLE.get()"].growth == 3


def test_handlers_are_named_by_their_logger(define: Define) -> None:
    logger = logging.getLogger("shop.orders")
    define(logger=logger)
    try:
        grown = grown_after(lambda: logger.addHandler(logging.NullHandler()))
        assert grown["logging.getLogger('shop.orders').handlers"].growth == 3
        assert "shop.logger.handlers" not in grown
    finally:
        logger.handlers.clear()


def test_receivers_of_a_signal_grow(define: Define) -> None:
    from celery.utils.dispatch import Signal

    signal = define(ordered=Signal("ordered")).ordered
    numbers = iter(range(3))

    def connect() -> None:
        signal.connect(lambda **_: None, weak=False, dispatch_uid=next(numbers))

    assert grown_after(connect)["shop.ordered.receivers"].growth == 3


def test_a_queue_grows(define: Define) -> None:
    waiting = define(WAITING=queue.Queue()).WAITING
    assert grown_after(lambda: waiting.put(1))["shop.WAITING.queue"].growth == 3


def test_a_weak_dictionary_grows(define: Define) -> None:
    known = define(KNOWN=weakref.WeakValueDictionary()).KNOWN
    alive = [functools.partial(print) for _ in range(3)]
    left = iter(range(3))

    def grow() -> None:
        number = next(left)
        known[number] = alive[number]

    assert grown_after(grow)["shop.KNOWN.data"].growth == 3


def test_a_container_in_a_small_container_grows(define: Define) -> None:
    held = define(REGISTRY={"a": [], 7: {"b": []}, "t": ([],)}).REGISTRY
    grown = grown_after(
        lambda: [held["a"].append(1), held[7]["b"].append(1), held["t"][0].append(1)]
    )
    assert {path for path in grown if path.startswith("shop.")} == {
        "shop.REGISTRY['a']",
        "shop.REGISTRY[7]['b']",
        "shop.REGISTRY['t'][0]",
    }


def test_the_values_of_a_large_container_are_not_looked_into(define: Define) -> None:
    held = define(REGISTRY={str(number): [] for number in range(100)}).REGISTRY
    assert "shop.REGISTRY['1']" not in grown_after(lambda: held["1"].append(1))


def test_a_deque_tells_its_limit(define: Define) -> None:
    held = define(LATEST=deque(maxlen=9000)).LATEST
    assert grown_after(lambda: held.append(1))["shop.LATEST"] == GrowingContainer(
        "shop.LATEST", "deque", 3, 3, 9000
    )


def test_a_deque_beside_what_is_limited_has_its_limit(define: Define) -> None:
    """As the queue of Jinja's ``LRUCache``."""
    shop = define(
        """
from collections import deque
class Cache:
    def __init__(self):
        self.capacity, self.mapping, self.queue = 300, {}, deque()
    def put(self, key):
        if len(self.mapping) == self.capacity:
            del self.mapping[self.queue.popleft()]
        self.mapping[key] = key
        self.queue.append(key)
CACHE = Cache()
"""
    )
    name = counter()
    grown = grown_after(lambda: shop.CACHE.put(name()))
    assert grown["shop.CACHE.queue"].capacity == 300
    assert grown["shop.CACHE.mapping"].capacity == 300


def test_modules_made_at_run_time_grow_sys_modules(define: Define) -> None:
    name = counter()
    grown = grown_after(lambda: define(name=name()))
    assert grown["sys.modules"].growth == 3


def test_a_module_that_gets_ever_more_names_grows(define: Define) -> None:
    shop = define(**{f"a{number}": 1 for number in range(100)})
    name = counter()
    assert grown_after(lambda: setattr(shop, name(), 1))["shop.__dict__"].growth == 3
