"""The container probe finds what grows, keeps nothing alive, and runs none of the application's
code."""

from __future__ import annotations

import array
import contextvars
import functools
import gc
import io
import logging
import queue
import sys
import threading
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.heap import addresses, containers, shapes
from celery_memory_exporter.agent.heap.addresses import MISSING, readable, resolve, shortened
from celery_memory_exporter.agent.heap.containers import ContainerRow, Probe
from tests.agent.conftest import Define

#: No walk takes so long.
FOREVER = 3600.0


def rows_after(grow: Callable[[], object], times: int = 3) -> dict[str, ContainerRow]:
    """Rows by path after one walk before and one after ``grow`` was called so often."""
    probe = Probe(size=200)
    assert probe.work(FOREVER)
    for _ in range(times):
        grow()
    assert probe.work(FOREVER)
    return {row.path: row for row in probe.rows()}


def counter() -> Callable[[], str]:
    """A new string at each call."""
    numbers = iter(range(10**9))
    return lambda: f"key-{next(numbers)}"


# --- kinds of holders ---------------------------------------------------------------------------


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
    assert rows_after(lambda: grow(value))["shop.HELD"] == ContainerRow(
        "shop.HELD", kind, 3, 3, None
    )


def test_a_buffer_grows_by_what_it_allocates(define: Define) -> None:
    buffer = define(BUFFER=io.BytesIO()).BUFFER
    assert rows_after(lambda: buffer.write(b"v" * 1000))["shop.BUFFER"].growth >= 3000


def test_a_closed_buffer_is_no_error(define: Define) -> None:
    shop = define(BYTES=io.BytesIO(), TEXT=io.StringIO())
    shop.BYTES.close()
    shop.TEXT.close()
    assert not {"shop.BYTES", "shop.TEXT"} & rows_after(lambda: None).keys()


@pytest.mark.parametrize("piece", ["line\n" * 100, b"line\n" * 100, ("line",) * 500])
def test_a_text_that_is_added_to_grows(define: Define, piece: Any) -> None:
    shop = define(LOG=piece)

    def grow() -> None:
        shop.LOG += piece

    assert rows_after(grow)["shop.LOG"] == ContainerRow(
        "shop.LOG", type(piece).__name__, 2000, 1500, None
    )


def test_a_class_attribute_grows(define: Define) -> None:
    shop = define("class Registry:\n    items = []\n    class Inner:\n        seen = set()")
    assert rows_after(lambda: shop.Registry.items.append(1))["shop.Registry.items"].growth == 3
    add = counter()
    assert (
        rows_after(lambda: shop.Registry.Inner.seen.add(add()))["shop.Registry.Inner.seen"].growth
        == 3
    )


def test_a_class_of_another_module_is_named_by_its_own(define: Define) -> None:
    shop = define("class Registry:\n    items = []", name="zz_origin")
    define(name="aa_importer", Registry=shop.Registry)
    rows = rows_after(lambda: shop.Registry.items.append(1))
    assert [path for path in rows if path.endswith(".items")] == ["zz_origin.Registry.items"]


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
    assert rows_after(lambda: shop.keep.run(1))["shop.keep.seen"].growth == 3


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
    assert rows_after(lambda: shop.WISH.held.append(1))["shop.WISH.held"].growth == 3


def test_a_function_among_its_own_defaults_is_no_error(define: Define) -> None:
    shop = define("HELD = []\ndef call(self=None): pass\ncall.__defaults__ = (call,)")
    assert rows_after(lambda: shop.HELD.append(1))["shop.HELD"].growth == 3


def test_an_unbounded_lru_cache_grows_without_a_limit(define: Define) -> None:
    shop = define("import functools\n@functools.lru_cache(maxsize=None)\ndef load(key): return key")
    key = counter()
    assert rows_after(lambda: shop.load(key()))["shop.load"] == ContainerRow(
        "shop.load", "lru_cache", 3, 3, None
    )


def test_a_bounded_lru_cache_tells_its_limit(define: Define) -> None:
    shop = define(
        "import functools\nclass Store:\n    @staticmethod\n    @functools.lru_cache(maxsize=99)\n "
        "   def load(key): return key"
    )
    key = counter()
    assert rows_after(lambda: shop.Store.load(key()))["shop.Store.load"].limit == 99


def test_what_a_cached_function_holds_is_found_behind_the_cache(define: Define) -> None:
    shop = define(
        "import functools\n@functools.lru_cache\ndef load(key, seen=[]): seen.append(key)"
    )
    key = counter()
    assert rows_after(lambda: shop.load(key()))["shop.load(seen=)"].growth == 3


@pytest.mark.parametrize(
    "signature", ["item, cache=[]", "item, one=1, cache=[]", "item, *, one=1, cache=[]"]
)
def test_a_default_argument_grows(define: Define, signature: str) -> None:
    shop = define(f"def load({signature}): cache.append(item)")
    assert rows_after(lambda: shop.load(1))["shop.load(cache=)"].growth == 3


@pytest.mark.parametrize("decorator", ["staticmethod", "classmethod"])
def test_a_methods_default_argument_grows(define: Define, decorator: str) -> None:
    shop = define(
        "class Shop:\n    def __init__(self, seen=[]): seen.append(1)\n"
        f"    @{decorator}\n    def load(*args, cache=[]): cache.append(1)"
    )
    assert rows_after(shop.Shop.load)["shop.Shop.load(cache=)"].growth == 3
    assert rows_after(shop.Shop)["shop.Shop.__init__(seen=)"].growth == 3


def test_a_propertys_default_argument_grows(define: Define) -> None:
    shop = define("class Shop:\n    @property\n    def price(self, seen=[]): seen.append(1)")
    instance = shop.Shop()
    assert rows_after(lambda: instance.price)["shop.Shop.price.fget(seen=)"].growth == 3


def test_a_closures_variable_grows(define: Define) -> None:
    shop = define(
        "def make():\n    seen = []\n    unbound: int\n    def add(item): seen.append(item)\n    "
        "return add\nadd = make()"
    )
    assert rows_after(lambda: shop.add(1))["shop.add.<closure>.seen"].growth == 3


def test_a_decorators_closure_is_found_behind_the_function_it_wraps(define: Define) -> None:
    shop = define(
        "import functools\n"
        "def memo(function):\n    known = {}\n    @functools.wraps(function)\n    def call(key):\n"
        "        return known.setdefault(key, key)\n    return call\n"
        "@memo\ndef load(key): return key"
    )
    key = counter()
    assert rows_after(lambda: shop.load(key()))["shop.load.<closure>.known"].growth == 3


def test_a_functions_attribute_grows(define: Define) -> None:
    shop = define("def load(): load.seen.append(1)\nload.seen = []")
    assert rows_after(shop.load)["shop.load.seen"].growth == 3


def test_instances_are_looked_into_four_attributes_deep(define: Define) -> None:
    shop = define(
        "class Node:\n    def __init__(self, below):\n        self.items = []\n        self.below "
        "= below\nroot = None"
    )
    lists = []
    for _ in range(6):
        shop.root = shop.Node(shop.root)
        lists.append(shop.root.items)
    rows = rows_after(lambda: [items.append(1) for items in lists])
    found = {path for path in rows if path.startswith("shop.")}
    assert found == {"shop.root" + ".below" * depth + ".items" for depth in range(4)}


def test_slots_are_looked_into(define: Define) -> None:
    shop = define(
        "class Store:\n    __slots__ = ('items', 'empty')\n    def __init__(self): self.items = "
        "[]\nstore = Store()"
    )
    assert rows_after(lambda: shop.store.items.append(1))["shop.store.items"].growth == 3


def test_an_instance_that_gets_ever_more_attributes_grows(define: Define) -> None:
    shop = define("class Store: pass\nstore = Store()")
    vars(shop.store).update({f"a{number}": [] for number in range(100)})
    name = counter()
    assert rows_after(lambda: setattr(shop.store, name(), 1))["shop.store.__dict__"].growth == 3


def test_a_thread_local_grows(define: Define) -> None:
    local = define(LOCAL=threading.local()).LOCAL
    local.items = []
    assert rows_after(lambda: local.items.append(1))["shop.LOCAL.items"].growth == 3


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
    rows_after(lambda: None)
    assert shop.runs == [1]


def test_a_context_variables_value_grows(define: Define) -> None:
    variable: contextvars.ContextVar[list[int]] = define(
        VARIABLE=contextvars.ContextVar("VARIABLE")
    ).VARIABLE
    variable.set([])
    assert rows_after(lambda: variable.get().append(1))["shop.VARIABLE.get()"].growth == 3


def test_handlers_are_named_by_their_logger(define: Define) -> None:
    logger = logging.getLogger("shop.orders")
    define(logger=logger)
    try:
        rows = rows_after(lambda: logger.addHandler(logging.NullHandler()))
        assert rows["logging.getLogger('shop.orders').handlers"].growth == 3
        assert "shop.logger.handlers" not in rows
    finally:
        logger.handlers.clear()


def test_receivers_of_a_signal_grow(define: Define) -> None:
    from celery.utils.dispatch import Signal

    signal = define(ordered=Signal("ordered")).ordered
    numbers = iter(range(3))

    def connect() -> None:
        signal.connect(lambda **_: None, weak=False, dispatch_uid=next(numbers))

    assert rows_after(connect)["shop.ordered.receivers"].growth == 3


def test_a_queue_grows(define: Define) -> None:
    waiting = define(WAITING=queue.Queue()).WAITING
    assert rows_after(lambda: waiting.put(1))["shop.WAITING.queue"].growth == 3


def test_a_weak_dictionary_grows(define: Define) -> None:
    known = define(KNOWN=weakref.WeakValueDictionary()).KNOWN
    alive = [functools.partial(print) for _ in range(3)]
    left = iter(range(3))

    def grow() -> None:
        number = next(left)
        known[number] = alive[number]

    assert rows_after(grow)["shop.KNOWN.data"].growth == 3


def test_a_container_in_a_small_container_grows(define: Define) -> None:
    held = define(REGISTRY={"a": [], 7: {"b": []}, "t": ([],)}).REGISTRY
    rows = rows_after(lambda: [held["a"].append(1), held[7]["b"].append(1), held["t"][0].append(1)])
    assert {path for path in rows if path.startswith("shop.")} == {
        "shop.REGISTRY['a']",
        "shop.REGISTRY[7]['b']",
        "shop.REGISTRY['t'][0]",
    }


def test_the_values_of_a_large_container_are_not_looked_into(define: Define) -> None:
    held = define(REGISTRY={str(number): [] for number in range(100)}).REGISTRY
    assert "shop.REGISTRY['1']" not in rows_after(lambda: held["1"].append(1))


def test_a_deque_tells_its_limit(define: Define) -> None:
    held = define(LATEST=deque(maxlen=9000)).LATEST
    assert rows_after(lambda: held.append(1))["shop.LATEST"] == ContainerRow(
        "shop.LATEST", "deque", 3, 3, 9000
    )


def test_modules_made_at_run_time_grow_sys_modules(define: Define) -> None:
    name = counter()
    rows = rows_after(lambda: define(name=name()))
    assert rows["sys.modules"].growth == 3


def test_a_module_that_gets_ever_more_names_grows(define: Define) -> None:
    shop = define(**{f"a{number}": 1 for number in range(100)})
    name = counter()
    assert rows_after(lambda: setattr(shop, name(), 1))["shop.__dict__"].growth == 3


# --- no foreign code ----------------------------------------------------------------------------


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

    rows = rows_after(both)
    assert rows["shop.HELD"] == ContainerRow("shop.HELD", base.__name__, 3, 3, None)
    assert rows["shop.HELD.nested"].growth == 3


def test_a_lazy_proxy_stays_lazy(define: Define) -> None:
    proxy = HostileMeta.__new__(HostileMeta, "Proxy", (), {**HOSTILE, "__slots__": ("wrapped",)})()
    object.__setattr__(proxy, "wrapped", touched)
    define(PROXY=proxy, HELD=[proxy], KEYED={"a": proxy}, NUMBERED={1: proxy})
    rows_after(lambda: None)


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
    assert "shop.HELD['a']" not in rows_after(lambda: [value.append(1) for value in held.values()])


def test_a_property_and_a_descriptor_are_not_asked(define: Define) -> None:
    define(
        "class Asked:\n    def __get__(self, *_): raise AssertionError\n"
        "class Store:\n    asked = Asked()\n    @property\n    def items(self): raise "
        "AssertionError\n"
        "    def __getattr__(self, name): raise AssertionError\nstore = "
        "Store()\nstore.__dict__['held'] = []"
    )
    rows_after(lambda: None)


# --- nothing is kept, nothing is changed --------------------------------------------------------


def test_nothing_is_kept_alive(define: Define) -> None:
    shop = define(
        "class Store:\n    def __init__(self): self.items = [set()]\nSTORE = Store()\nHELD = {'a': "
        "Store()}"
    )
    probe = Probe()
    probe.work(FOREVER)
    shop.STORE.items.append(1)
    shop.HELD["a"].items.append(1)
    for _ in range(100):
        probe.work(0.0)
    probe.work(FOREVER)
    probe.sizes()
    probe.rows()
    references = [
        weakref.ref(shop.STORE),
        weakref.ref(shop.HELD["a"]),
        weakref.ref(shop.STORE.items[0]),
        weakref.ref(shop.Store),
    ]
    del shop.STORE, shop.Store
    shop.HELD.clear()
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


def test_nothing_is_held_while_a_walk_rests(define: Define) -> None:
    class Store:
        pass

    held = [Store() for _ in range(50)]
    references = [weakref.ref(store) for store in held]
    define(**{f"a{number}": store for number, store in enumerate(held)})
    for store in held:
        vars(store)["items"] = []
    probe = Probe()
    while not probe._walk or probe._walk._module != "shop":
        assert not probe.work(0.0)
    assert not probe.work(0.0)
    vars(sys.modules["shop"]).clear()
    held.clear()
    del store
    gc.collect()
    assert {reference() for reference in references} == {None}
    assert probe.work(FOREVER)


def test_functions_get_no_dict_by_being_looked_at(define: Define) -> None:
    shop = define(
        "def plain(one, two=2): pass\ndef keyed(*, cache=[]): pass\n"
        "def make():\n    held = []\n    return lambda: held\nclosure = make()"
    )
    rows_after(lambda: None)
    for function in (shop.plain, shop.closure, shop.keyed):
        assert not shapes._has_attributes(function)


def test_the_agents_own_containers_are_left_out(define: Define) -> None:
    probe = Probe(size=200)
    define(probe=probe, items=[probe.work], held={"a": probe})
    name = counter()
    probe.work(FOREVER)
    for _ in range(3):
        define(name=name())
    probe.work(FOREVER)
    assert not [
        row
        for row in probe.rows()
        if "probe" in row.path or row.path.startswith(("celery_memory_exporter.", "shop."))
    ]


def test_the_demo_application_is_not_the_agent() -> None:
    assert not shapes.is_own("celery_memory_exporter.demo.shop")
    assert not shapes.is_own("celery_memory_exporter_plugin")
    assert shapes.is_own("celery_memory_exporter.agent.heap.containers")
    assert shapes.is_own("celery_memory_exporter")


# --- growth -------------------------------------------------------------------------------------


def test_growth_counts_from_when_a_container_was_first_seen(define: Define) -> None:
    shop = define(OLD=[1, 2])
    probe = Probe()
    probe.work(FOREVER)
    shop.NEW = [1] * 10
    probe.work(FOREVER)
    shop.NEW.append(1)
    shop.OLD.append(1)
    probe.work(FOREVER)
    assert {row.path: row.growth for row in probe.rows() if row.path.startswith("shop.")} == {
        "shop.OLD": 1,
        "shop.NEW": 1,
    }


def test_only_what_grew_is_followed_and_the_greatest_growth_comes_first(define: Define) -> None:
    shop = define(STILL=[1] * 1000, SMALL=[], LARGE=[])
    probe = Probe()
    probe.work(FOREVER)
    assert (probe.walks, probe.sizes(), probe.rows()) == (1, {}, [])
    shop.SMALL.append(1)
    shop.LARGE.extend(range(10**6))
    probe.work(FOREVER)
    shown = [row.path for row in probe.rows()]
    assert shown[0] == "shop.LARGE"
    assert "shop.SMALL" in shown
    assert "shop.STILL" not in shown
    assert probe.walks == 2


def test_what_still_grows_goes_before_what_grew_once(define: Define) -> None:
    shop = define(ONCE=[], DRIP=[])
    probe = Probe(size=1)
    probe.work(FOREVER)
    shop.ONCE.extend(range(10**6))
    probe.work(FOREVER)
    assert list(probe.sizes()) == ["shop.ONCE"]
    shop.DRIP.extend(range(10**5))
    probe.work(FOREVER)
    assert list(probe.sizes()) == ["shop.DRIP"]


def test_what_is_followed_stays_while_it_grows(define: Define) -> None:
    shop = define(FIRST=[], LATER=[])
    probe = Probe(size=1)
    probe.work(FOREVER)
    shop.FIRST.extend(range(10**5))
    probe.work(FOREVER)
    shop.FIRST.append(1)
    shop.LATER.extend(range(10**6))
    probe.work(FOREVER)
    assert list(probe.sizes()) == ["shop.FIRST"]


def test_sizes_are_those_of_now(define: Define) -> None:
    held = define(HELD=[]).HELD
    probe = Probe()
    probe.work(FOREVER)
    held.append(1)
    probe.work(FOREVER)
    held.extend([1, 2])
    assert probe.sizes()["shop.HELD"] == 3


def test_a_module_deleted_between_walks_is_no_error(define: Define) -> None:
    held = define(HELD=[]).HELD
    probe = Probe()
    probe.work(FOREVER)
    held.append(1)
    probe.work(FOREVER)
    del sys.modules["shop"]
    assert "shop.HELD" not in probe.sizes()
    assert "shop.HELD" not in {row.path for row in probe.rows()}
    assert probe.work(FOREVER)


@pytest.mark.parametrize("module", [None, 7, object(), types.SimpleNamespace(items=[])])
def test_what_is_no_module_in_sys_modules_is_no_error(
    monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    monkeypatch.setitem(sys.modules, "shop", module)
    rows_after(lambda: None)


# --- caps and budgets ---------------------------------------------------------------------------


def test_a_walk_goes_on_over_many_calls(define: Define) -> None:
    held = define(HELD=[]).HELD
    probe = Probe()
    calls = 0
    while not probe.work(0.0):
        calls += 1
    assert calls > 100, "one object a call"
    held.append(1)
    while not probe.work(0.0):
        pass
    assert "shop.HELD" in probe.sizes()


def test_addresses_have_a_cap(define: Define, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_ADDRESSES", 10)
    define(**{f"a{number}": [] for number in range(100)})
    probe = Probe()
    probe.work(FOREVER)
    assert len(probe._first) == 10


def test_one_module_cannot_take_the_whole_walk(define: Define) -> None:
    shop = define(**{f"a{number}": [] for number in range(shapes.MAX_NODES_PER_MODULE + 100)})
    probe = Probe()
    while not probe._walk or probe._walk._module != "shop":
        probe.work(0.0)
    assert probe._walk._nodes <= shapes.MAX_NODES_PER_MODULE
    assert probe.work(FOREVER)
    assert len(vars(shop)) > shapes.MAX_NODES_PER_MODULE


def test_the_number_of_followed_containers_has_a_cap(define: Define) -> None:
    lists = vars(define(**{f"a{number}": [] for number in range(100)}))
    probe = Probe(size=5)
    probe.work(FOREVER)
    for number in range(100):
        lists[f"a{number}"].append(1)
    probe.work(FOREVER)
    assert len(probe.rows()) == len(probe.sizes()) == 5


# --- addresses ----------------------------------------------------------------------------------


@given(st.text(max_size=200))
def test_a_path_is_never_longer_than_a_label(path: str) -> None:
    assert len(shortened(path)) <= addresses.MAX_PATH_LENGTH
    assert shortened(path) == path or len(path) > addresses.MAX_PATH_LENGTH


@given(st.text(alphabet=st.characters(exclude_characters="\0"), max_size=50))
def test_any_key_can_be_shown(key: str) -> None:
    assert readable(f"shop\0.HELD\0[{key}") == shortened(f"shop.HELD[{key!r}]")


@given(st.lists(st.sampled_from(".[#(<@=!"), max_size=4), st.sampled_from(["a", "7", "__dict__"]))
def test_an_address_that_leads_nowhere_is_no_error(letters: list[str], name: str) -> None:
    steps = [letter + ("7" if letter == "#" else name) for letter in letters]
    resolve("\0".join(["celery.app.base", *steps]))
    assert resolve("\0".join(["no.such.module", *steps])) is MISSING
