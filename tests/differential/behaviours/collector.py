"""The garbage collector, finalizers and weak caches."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from typing import Any

from tests.differential.behaviour import Observation, Run, behaviour


class Loop:
    """Garbage that only the collector frees. ``died`` hears of it."""

    def __init__(self, died: list[str]) -> None:
        self.itself = self
        self.died = died

    def __del__(self) -> None:
        self.died.append(threading.current_thread().name)


class Plain:
    """Freed as soon as nobody refers to it."""

    def __init__(self, died: list[str], name: str = "plain") -> None:
        self.died = died
        self.name = name

    def __del__(self) -> None:
        self.died.append(self.name)


@behaviour()
def switches(run: Run) -> Observation:
    return {
        "enabled": gc.isenabled(),
        "debug": gc.get_debug(),
        "garbage": len(gc.garbage),
        "frozen": gc.get_freeze_count() > 0,
        "threshold": gc.get_threshold(),
        "callbacks": len(gc.callbacks),
    }


@behaviour()
def collect(run: Run) -> Observation:
    gc.collect()
    died: list[str] = []
    for _ in range(10):
        Loop(died)
    before = len(died)
    found = gc.collect(run.number % 3)
    return {"before": before, "found": found >= 10, "died": len(died)}


@behaviour()
def explicit_collections_are_heard(run: Run) -> Observation:
    heard = []

    def hear(phase: str, facts: dict[str, int]) -> None:
        heard.append((phase, facts["generation"], facts["uncollectable"]))

    gc.disable()
    gc.callbacks.append(hear)
    try:
        for generation in (0, 1, 2):
            gc.collect(generation)
    finally:
        gc.callbacks.remove(hear)
        gc.enable()
    return {"heard": heard}


@behaviour()
def a_callback_that_raises(run: Run) -> Observation:
    unraisable: list[str] = []

    def fail(phase: str, facts: dict[str, int]) -> None:
        raise ValueError(phase)

    before, sys.unraisablehook = (
        sys.unraisablehook,
        lambda seen: unraisable.append(str(seen.exc_value)),
    )
    gc.disable()
    gc.callbacks.append(fail)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(fail)
        gc.enable()
        sys.unraisablehook = before
    return {"unraisable": unraisable}


@behaviour(spans=True)
def collections_between_runs(run: Run) -> Observation:
    if run.first:
        heard = run.memory["heard"] = set()

        def hear(phase: str, facts: dict[str, int]) -> None:
            heard.add(facts["generation"])

        run.memory["hear"] = hear
        gc.callbacks.append(hear)
        return {}
    gc.callbacks.remove(run.memory.pop("hear"))
    return {"generations": sorted(run.memory["heard"]), "left": len(gc.callbacks)}


@behaviour(spans=True)
def switched_off(run: Run) -> Observation:
    if run.first:
        gc.disable()
        run.memory["died"] = []
        Loop(run.memory["died"])
        return {"enabled": gc.isenabled()}
    seen = {"enabled": gc.isenabled(), "died": len(run.memory["died"])}
    gc.enable()
    return seen


@behaviour(spans=True)
def own_thresholds(run: Run) -> Observation:
    if run.first:
        run.memory["before"] = gc.get_threshold()
        gc.set_threshold(500, 7, 9)
        return {"first": gc.get_threshold()}
    seen = gc.get_threshold()
    gc.set_threshold(*run.memory["before"])
    return {"second": seen}


@behaviour()
def churn(run: Run) -> Observation:
    """Allocates so much that the middle generation is collected meanwhile."""
    rows = [[number] for number in range(25_000)]
    return {"threshold": gc.get_threshold(), "enabled": gc.isenabled(), "rows": len(rows)}


@behaviour(spans=True)
def freeze(run: Run) -> Observation:
    if run.first:
        gc.freeze()
        return {"first": gc.get_freeze_count() > 0}
    seen = gc.get_freeze_count() > 0
    gc.unfreeze()
    return {"second": seen, "thawed": gc.get_freeze_count()}


@behaviour(spans=True)
def debug(run: Run) -> Observation:
    if run.first:
        gc.set_debug(gc.DEBUG_SAVEALL)
        return {}
    seen = gc.get_debug()
    mark: list[str] = []
    Loop(mark)
    gc.collect()
    saved = sum(type(each) is Loop and each.died is mark for each in gc.garbage)
    gc.set_debug(0)
    gc.garbage.clear()
    return {"debug": seen, "saved": saved}


@behaviour(spans=True)
def finalizers(run: Run) -> Observation:
    if run.first:
        run.memory["died"] = []
        for _ in range(3):
            Loop(run.memory["died"])
        return {"at_once": len(run.memory["died"])}
    died = run.memory["died"]
    before = len(died)
    gc.collect()
    here = threading.current_thread().name
    return {"died": before, "in_all": len(died), "here": all(each == here for each in died)}


@behaviour(spans=True)
def finalizers_without_cycles(run: Run) -> Observation:
    if run.first:
        died = run.memory["died"] = []
        one, two, three = Plain(died, "one"), Plain(died, "two"), Plain(died, "three")
        run.memory["finalize"] = weakref.finalize(two, died.append, "finalize")
        run.memory["weak"] = weakref.ref(three, lambda _: died.append("callback"))
        del one
        return {"within": list(died)}
    return {"after": run.memory["died"], "weak": run.memory["weak"]() is None}


@behaviour(spans=True)
def weak_cache_of_cycles(run: Run) -> Observation:
    if run.first:
        run.memory["cache"] = weakref.WeakValueDictionary(value=Loop([]))
        return {"within": "value" in run.memory["cache"]}
    hit = "value" in run.memory["cache"]
    gc.collect()
    return {"hit": hit, "collected": "value" in run.memory["cache"]}


@behaviour(spans=True)
def weak_caches(run: Run) -> Observation:
    """Of what is still referred to, with cycles and without."""
    if run.first:
        loop, plain = Loop([]), Plain([])
        run.memory["strong"] = [loop, plain]
        run.memory["values"] = weakref.WeakValueDictionary(loop=loop, plain=plain)
        run.memory["keys"] = weakref.WeakKeyDictionary({loop: 1, plain: 2})
        return {}
    return {"values": sorted(run.memory["values"]), "keys": sorted(run.memory["keys"].values())}


@behaviour(pairs=6)
def objects(run: Run) -> Observation:
    mine: list[Any] = [object()]
    listed = sum(each is mine for each in gc.get_objects())
    return {
        "listed": listed,
        "referrers": len(gc.get_referrers(mine)),
        "referents": len(gc.get_referents(mine)),
        "tracked": gc.is_tracked(mine),
    }
