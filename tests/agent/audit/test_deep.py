"""What deep audits find: which line made it, and who holds it."""

from __future__ import annotations

import sys

import pytest

from celery_memory_exporter.agent.audit import deep
from celery_memory_exporter.agent.audit.dossier import Dossier
from celery_memory_exporter.agent.audit.suspicion import Suspicion
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.common.evidence import AGES
from tests.agent.audit.harness import profile_of, survivors_of
from tests.agent.audit.leaky import (
    KEY,
    LEAKS,
    Load,
    knows,
    line_of,
    make_meter,
    run_until,
)


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
    assert survivors_of(meter).keys() == {"leaky.Cart"}


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


def test_how_a_container_fills_up_is_told_age_by_age(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a large process, the walk that finds the container takes more than the first ninety runs.
    monkeypatch.setattr(deep, "WALK_SECONDS", 1.0)
    module = load("HELD = []\ndef leak():\n    HELD.append({})\n")
    meter = make_meter()
    dossier = run_until(meter, module.leak, lambda found: AGES.index(105) in found.sizes)
    fill = dossier.fill("leaky.HELD", len(module.HELD), profile_of(meter).row)
    assert fill[-2] == (15, 15), "from 90 to 105"
    assert sum(gained for gained, _ in fill) == sum(runs for _, runs in fill), (
        "one item a run, from where it was followed on"
    )
    assert dossier.fill("leaky.GONE", 7, profile_of(meter).row) == [(0.0, 0.0)] * len(fill)


def test_sizes_are_noted_only_as_an_age_begins(load: Load) -> None:
    """A part of what an age gained must not be shared out among all of its runs."""
    meter = make_meter()
    meter.deep.dossiers[KEY] = dossier = Dossier(suspicion=Suspicion(bytes=100.0))
    profile = TaskProfile()
    for _ in range(AGES[6]):
        age = profile.begin()
    meter.deep.mark(KEY, profile, age)
    assert not dossier.sizes
    meter.deep.mark(KEY, profile, profile.begin())
    assert list(dossier.sizes) == [6]
