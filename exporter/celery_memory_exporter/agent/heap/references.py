"""Who holds an object: a path of references from a module or a class down to it.

objgraph searches backwards, breadth first. Each object that it looks behind costs one pass over the
whole heap (20 to 40 ms at a million objects), and it collects garbage first: the time is looked at
between passes, so the search ends late by at most one pass, or by that collection. It is the
thread's own time: by the clock's, nothing would be found on a crowded machine.

Namespaces of modules and classes are where a search ends: to go on from there would look behind
every function of the module and every instance of the class. The agent's own references, and
frames, are never the answer, and nothing is kept alive.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any

from celery_memory_exporter.agent.heap.addresses import shortened, written
from celery_memory_exporter.agent.heap.census import type_name
from celery_memory_exporter.agent.heap.foreign import (
    is_class,
    is_own,
    items_of,
    module_of,
    namespace_of,
)
from celery_memory_exporter.agent.heap.shapes import known_shape, shape_of
from celery_memory_exporter.agent.interruptions import let_pass

#: What is further away from a module than this is not explained by it.
MAX_STEPS = 20
#: Python 3.12 freezes some hundred objects that live for ever by itself.
MOST_FROZEN = 1_000
#: Searches of one candidate again, because the path led through the agent.
MAX_DETOURS = 3


class _OutOfTime(Exception):  # noqa: N818  # no error: the end of a search
    """Ends a search from within."""


def path_to_module(candidates: Sequence[object], seconds: float) -> str | None:
    """The path to the first candidate that a module or class holds, such as
    ``shop.Stack.head.next``; at most 120 characters.

    A step that repeats is written once and keys are left out, so that equal objects have equal
    paths. ``None`` without objgraph, when the time is up, when nothing but frames holds them, or
    when they are frozen (``gc.freeze``), which hides their holders.
    """
    try:
        from objgraph import find_backref_chain
    except (ImportError, OSError) as error:  # not installed, or no descriptor left to read it with
        let_pass(error)
        return None
    deadline = time.thread_time() + seconds
    roots = _namespaces()
    with contextlib.suppress(_OutOfTime):
        for candidate in candidates:
            path = _path(find_backref_chain, candidate, id(candidates), roots, deadline)
            if path is not None:
                return path
    return None


def held_by_c_code(candidates: list[object]) -> str | None:
    """In words that C code holds the first of these which somebody holds, where no Python object
    refers to it; else ``None``, as where objects are frozen, which hides who refers to what. It
    costs one pass over the heap."""
    if gc.get_freeze_count() > MOST_FROZEN:
        return None
    nobodys = [_Nobodys()]
    for at in range(len(candidates)):
        if sys.getrefcount(candidates[at]) > sys.getrefcount(nobodys[0]):
            name = type_name(type(candidates[at]))
            return None if _referred(candidates, at) else f"C code (no object refers to {name})"
    return None


class _Nobodys:
    """A list alone refers to it."""


def _referred(candidates: list[object], at: int) -> bool:
    """Whether an object does that is not the caller's, nor the candidate itself."""
    ignored = {id(candidates), id(candidates[at]), id(namespace_of(candidates[at])), *_frames()}
    return any(id(each) not in ignored for each in gc.get_referrers(candidates[at]))


def _path(
    find: Callable[..., list[Any]],
    start: object,
    listed: int,
    roots: dict[int, str],
    deadline: float,
) -> str | None:
    """One candidate's path; around the agent, as often as it takes."""

    def is_root(target: Any) -> bool:
        if time.thread_time() >= deadline:
            raise _OutOfTime
        return target is not start and (
            id(target) in roots or (is_class(target) and not is_own(module_of(target)))
        )

    ignored = {listed, *_frames()}
    for _ in range(MAX_DETOURS):
        chain = find(start, is_root, max_depth=MAX_STEPS, extra_ignore=ignored)
        if len(chain) == 1:
            return None
        own = {id(found) for found in chain if _is_agents(found)}
        if not own:
            return _readable(chain, roots)
        ignored |= own
        del chain  # it refers to the candidate, too
    return None


def _namespaces() -> dict[int, str]:
    """Module names by the identity of the module's dict."""
    modules = [(name, namespace_of(module)) for name, module in sys.modules.copy().items()]
    # A class in place of a module (``typing.re``) has no dict of its own to show, but a view made
    # for each who asks.
    return {
        id(space): name
        for name, space in modules
        if type(name) is str and type(space) is dict and not is_own(name)
    }


def _frames() -> Iterator[int]:
    """The identities of all running frames: whoever called this holds what it looks for."""
    for innermost in (sys._getframe(), *sys._current_frames().values()):
        frame: types.FrameType | None = innermost
        while frame is not None:
            yield id(frame)
            frame = frame.f_back


def _is_agents(found: Any) -> bool:
    if type(found) is types.FunctionType:
        return is_own(dict.get(found.__globals__, "__name__"))
    return is_own(module_of(type(found)))


# --- in words -----------------------------------------------------------------------------------


def _readable(chain: list[Any], roots: dict[int, str]) -> str:
    root = chain[0]
    name = type_name(root) if is_class(root) else roots[id(root)]
    aboves = [None, *chain]
    steps = [
        _step(above, holder, held, roots)
        for above, (holder, held) in zip(aboves, pairwise(chain), strict=False)
    ]
    return shortened(name + "".join(step for step, _ in groupby(filter(None, steps))))


def _step(above: Any, holder: Any, held: Any, roots: dict[int, str]) -> str:
    """How ``holder``, itself held by ``above``, refers to ``held``; empty where that goes without
    saying."""
    if type(holder) is types.FunctionType and _is_part(holder, held):
        return ""
    if type(above) is types.FunctionType and _is_part(above, holder):
        return (
            written("<" + _variable(above, held))
            if type(held) is types.CellType
            else _named(above, held)
        )
    if type(holder) is types.CellType or (
        type(held) is dict and (is_class(holder) or held is namespace_of(holder))
    ):
        return ""
    if type(holder) is dict and (
        id(holder) in roots
        or is_class(above)
        or (above is not None and holder is namespace_of(above))
    ):
        return next(
            (f".{key}" for key, value in items_of(holder) if value is held and type(key) is str),
            ".…",
        )
    if known_shape(holder).size is not None:
        return "[...]"
    return _named(holder, held)


def _named(holder: Any, held: Any) -> str:
    for parts in shape_of(type(holder)).parts:
        for step, value in parts(holder):
            if value is held:
                return written(step)
    return f" -> {type_name(type(held))}"


def _is_part(function: types.FunctionType, held: Any) -> bool:
    return held is not None and any(
        held is part
        for part in (function.__closure__, function.__defaults__, function.__kwdefaults__)
    )


def _variable(function: types.FunctionType, cell: types.CellType) -> str:
    """The name of a closure's variable."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    return next((name for name, own in cells if own is cell), "…")
