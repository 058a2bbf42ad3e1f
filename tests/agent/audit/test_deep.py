"""Deep audits: which line made it, and who holds it."""

from __future__ import annotations

import importlib
import sys
import textwrap
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.audit.deep import ENOUGH, MAX_NAMES, PATIENCE, Dossier
from celery_memory_exporter.agent.audit.suspicion import Suspicion
from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter.calibration import calibrated_meter
from celery_memory_exporter.agent.meter.conditions import Conditions
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.growth import Growth
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.common.report import AGES

Load = Callable[[str], ModuleType]
KEY = ("t", "")
MANY = 3_000


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Makes an application's module of a source, importable until the test ends."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(source: str) -> ModuleType:
        (tmp_path / "leaky.py").write_text(textwrap.dedent(source))
        return importlib.import_module("leaky")

    yield write
    sys.modules.pop("leaky", None)


def line_of(module: ModuleType, code: str) -> str:
    assert module.__file__ is not None
    lines = Path(module.__file__).read_text().splitlines()
    return f"leaky.py:{1 + next(at for at, line in enumerate(lines) if code in line)}"


def knows(dossier: Dossier, figure: str) -> bool:
    return any(known == figure for known, _ in dossier.sites)


def make_meter() -> Meter:
    meter = calibrated_meter(Guard(), Readings(), Conditions(200))
    meter.auditor.budget, meter.deep.budget = Budget(0.0, 1e9), Budget(0.0, 1e9)
    return meter


def run_until(
    meter: Meter, body: Callable[[], object], done: Callable[[Dossier], object]
) -> Dossier:
    def trace(*_: Any) -> trace_ok_t:
        body()
        return trace_ok_t(None, None, float("0.25"), "".join(["None"]))

    wrapped = measured(meter, "t", trace)
    for _ in range(MANY):
        wrapped("uuid", (), {}, {})
        dossier = meter.deep.dossiers.get(KEY)
        if dossier is not None and done(dossier):
            break
    assert meter.guard.errors == 0
    return meter.deep.dossiers[KEY]


LEAKS = """
    class Cart:
        pass

    CARTS = {}

    def run():
        for _ in range(20):
            cart = Cart()
            cart.items = bytes(400)  # this is most of it
            CARTS[len(CARTS)] = cart
"""


def test_a_leaks_line_and_its_holder_are_named(load: Load) -> None:
    leaky = load(LEAKS)
    meter = make_meter()
    dossier = run_until(meter, leaky.run, lambda dossier: dossier.explained and dossier.holders)
    assert dossier.suspicion.bytes > 0
    most = max(dossier.sites, key=lambda site: dossier.sites[site])
    assert most == ("bytes", line_of(leaky, "most of it"))
    kind, items = dossier.holders["leaky.CARTS"]
    assert kind == "dict"
    assert items > 0
    assert items % 20 == 0
    assert meter.totals.growth[KEY].survivors.keys() == {"leaky.Cart"}


def test_where_no_container_holds_it_a_path_is_found(load: Load) -> None:
    leaky = load("""
        class Node:
            below = None

        class Stack:
            head = None

        def run():
            node = Node()
            node.below = Stack.head
            Stack.head = node
    """)
    dossier = run_until(make_meter(), leaky.run, lambda dossier: dossier.paths)
    assert [path for path in dossier.paths if path.startswith("leaky.Stack")] == [
        "leaky.Stack.head"
    ]


def test_a_task_that_keeps_nothing_is_not_looked_at_deeply(load: Load) -> None:
    leaky = load("""
        def run():
            return [object() for _ in range(100)]
    """)
    meter = make_meter()
    dossier = run_until(meter, leaky.run, lambda dossier: meter.runs >= 100)
    assert (dossier.audits, dossier.sites, dossier.holders, dossier.paths) == (0, {}, {}, {})
    assert meter.deep.probe.walks == 0


def test_tracing_is_left_as_it_was_found(load: Load) -> None:
    leaky = load(LEAKS)
    seen = set()

    def run() -> None:
        leaky.run()
        seen.add(tracemalloc.is_tracing())

    run_until(make_meter(), run, lambda dossier: dossier.audits >= 3)
    assert seen == {True, False}, "in some runs it was on"
    assert not tracemalloc.is_tracing()
    assert sys.gettrace() is None


def test_an_application_that_traces_by_itself_is_left_alone(load: Load) -> None:
    leaky = load(LEAKS)
    tracemalloc.start(3)
    try:
        dossier = run_until(make_meter(), leaky.run, lambda dossier: dossier.audits >= 2)
        assert tracemalloc.is_tracing()
        assert tracemalloc.get_traceback_limit() == 3
        assert tracemalloc.get_object_traceback(leaky.CARTS[0].items) is not None, (
            "its traces are still there"
        )
    finally:
        tracemalloc.stop()
    assert not knows(dossier, "bytes")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_tracing_ends_with_a_run_that_raises(load: Load, error: type[BaseException]) -> None:
    leaky = load(LEAKS)
    meter = make_meter()
    run_until(meter, leaky.run, lambda dossier: dossier.suspicion)
    traced = False

    def trace(*_: Any) -> Any:
        nonlocal traced
        traced = tracemalloc.is_tracing()
        raise error

    wrapped = measured(meter, "t", trace)
    for _ in range(100):
        with pytest.raises(error):
            wrapped("uuid", (), {}, {})
        assert not tracemalloc.is_tracing()
        if traced:
            break
    assert traced


def test_the_line_of_memory_that_c_code_keeps_is_named(load: Load) -> None:
    if Readings().native_live() is None:
        pytest.skip("no mallinfo2 here: musl, an old glibc, or another allocator")
    if sys.gettrace() is not None:
        pytest.skip("a debugger or a coverage tool goes first")
    leaky = load("""
        import ctypes

        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        libc.free.argtypes = [ctypes.c_void_p]
        kept = []

        def run():
            libc.free(libc.malloc(50_000))
            kept.append(libc.malloc(40_000))  # C keeps it
    """)
    dossier = run_until(make_meter(), leaky.run, lambda dossier: knows(dossier, "native"))
    for address in leaky.kept:
        leaky.libc.free(address)
    native = {
        site: amount for (figure, site), amount in dossier.sites.items() if figure == "native"
    }
    assert max(native, key=lambda site: native[site]) == line_of(leaky, "C keeps it")
    assert sys.gettrace() is None


def test_the_line_that_opens_descriptors_is_named(load: Load) -> None:
    leaky = load("""
        import os

        opened = [None] * 10_000
        at = iter(range(10_000))

        def run():
            opened[next(at)] = os.dup(0)  # never closed
    """)
    if sys.gettrace() is not None:
        pytest.skip("a debugger or a coverage tool goes first")
    try:
        dossier = run_until(make_meter(), leaky.run, lambda dossier: knows(dossier, "descriptors"))
    finally:
        for descriptor in leaky.opened:
            if descriptor is not None:
                leaky.os.close(descriptor)
    assert dossier.suspicion.kernel
    assert {site for figure, site in dossier.sites if figure == "descriptors"} == {
        line_of(leaky, "never closed")
    }


def test_a_deep_audit_keeps_nothing_alive(load: Load) -> None:
    leaky = load(LEAKS)
    run_until(
        meter := make_meter(), leaky.run, lambda dossier: dossier.audits >= 3 and dossier.holders
    )
    ghosts = [weakref.ref(cart) for cart in leaky.CARTS.values()]
    assert len(ghosts) > 100
    leaky.CARTS.clear()
    assert {ghost() for ghost in ghosts} == {None}
    assert not meter.deep._sizes


def test_deep_audits_are_on_a_budget_of_their_own(load: Load) -> None:
    leaky = load(LEAKS)
    meter = make_meter()
    dossier = run_until(meter, leaky.run, lambda dossier: dossier.audits >= 1)
    spent = meter.deep.budget.spent
    assert spent > 0
    meter.deep.budget = Budget(0.0, 0.0)
    runs, audits = meter.runs, meter.auditor.audits
    run_until(meter, leaky.run, lambda dossier: meter.runs >= runs + 50)
    assert dossier.audits == 1
    assert meter.auditor.audits > audits, "plain audits go on"


def test_plain_audits_go_on_beside_deep_ones(load: Load) -> None:
    leaky = load(LEAKS)
    meter = make_meter()
    run_until(meter, leaky.run, lambda dossier: dossier.suspicion)
    before = meter.totals.growth[KEY].audits
    run_until(meter, leaky.run, lambda dossier: dossier.audits >= 3)
    assert meter.totals.growth[KEY].audits > before


def test_how_a_container_fills_up_is_told_age_by_age(load: Load) -> None:
    module = load("HELD = []\ndef leak():\n    HELD.append({})\n")
    meter = make_meter()
    dossier = run_until(meter, module.leak, lambda found: AGES.index(105) in found.sizes)
    fill = dossier.fill("leaky.HELD", len(module.HELD), meter.totals.growth[KEY].row)
    assert fill[-2] == (15, 15), "from 90 to 105"
    assert sum(gained for gained, _ in fill) == sum(runs for _, runs in fill), (
        "one item a run, from where it was followed on"
    )
    assert dossier.fill("leaky.GONE", 7, meter.totals.growth[KEY].row) == [(0.0, 0.0)] * len(fill)


def test_sizes_are_noted_only_as_an_age_begins(load: Load) -> None:
    """A part of what an age gained must not be shared out among all of its runs."""
    meter = make_meter()
    meter.deep.dossiers[KEY] = dossier = Dossier(suspicion=Suspicion(bytes=100.0))
    grown = Growth()
    for _ in range(AGES[6]):
        start = grown.begin()
    meter.deep.mark(KEY, grown, start)
    assert not dossier.sizes
    meter.deep.mark(KEY, grown, grown.begin())
    assert list(dossier.sizes) == [6]


def test_a_type_that_allocates_too_much_to_list_is_not_traced_again(load: Load) -> None:
    """However little of it is more than before: to list what was allocated would take seconds."""
    module = load(
        """
        ROWS, HELD = [], []

        def refresh():
            ROWS[:] = [[number] for number in range(100_000)]
            HELD.append([{} for _ in range(20)])
        """
    )
    meter = make_meter()
    dossier = run_until(meter, module.refresh, lambda found: found.audits >= 3)
    assert dossier.too_large
    assert not knows(dossier, "bytes")
    assert not tracemalloc.is_tracing()


def test_when_a_type_is_explained() -> None:
    assert not Dossier(found=ENOUGH).explained, "its holder is not known"
    assert Dossier(found=ENOUGH, holders={"shop.CARTS": ("dict", 1.0)}).explained
    assert Dossier(found=ENOUGH, searched=ENOUGH).explained, "there is none to be found"
    assert Dossier(found=ENOUGH, audits=PATIENCE).explained
    assert not Dossier(found=ENOUGH - 1, audits=PATIENCE, searched=ENOUGH).explained


def test_a_dossier_is_bounded() -> None:
    dossier = Dossier(Suspicion(1.0))
    for number in range(10 * MAX_NAMES):
        dossier.add_site("bytes", f"shop.py:{number}", 1.0)
        dossier.add_holder(f"shop.c{number}", "dict", 1.0)
        dossier.add_site("bytes", "shop.py:0", 1.0)
        dossier.add_holder("shop.c0", "dict", 1.0)
    assert len(dossier.sites) == len(dossier.holders) == MAX_NAMES
    assert dossier.sites["bytes", "shop.py:0"] == 10 * MAX_NAMES + 1
    assert dossier.holders["shop.c0"] == ("dict", 10 * MAX_NAMES + 1)
