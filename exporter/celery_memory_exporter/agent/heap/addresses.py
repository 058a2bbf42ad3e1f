"""How a container is found again although nothing refers to it: by an address, one string.

An address is a module's name and the steps from there, each a letter of ``STEPS`` and a name. What
leads down from an object is the work of its shape; here are the attributes of instances, which each
type has its own of, and the way back from an address to what is there now. Both run no foreign
code, and neither keeps an object.

An instance's ``__dict__`` is asked for only if something of interest is in it: until then Python
need not have built it.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import logging
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from celery.local import PromiseProxy

from celery_memory_exporter.agent.heap.shapes import (
    LEAF,
    MAX_FOLLOWED_ITEMS,
    SEPARATOR,
    SHAPES,
    UNINTERESTING,
    Parts,
    Shape,
    attributes_in,
    bases_of,
    class_dict,
    is_own,
    is_plain,
    known_shape,
    measure,
    module_of,
    mro,
    namespace_getter,
    namespace_of,
)

MAX_PATH_LENGTH = 120
#: First letter of a step: how it is shown, and how much deeper it leads.
STEPS = {
    ".": (".{}", 1),  # an attribute
    "[": ("[{!r}]", 2),  # a key
    "#": ("[{}]", 2),  # an integer key or an index
    "(": ("({}=)", 0),  # a default argument
    "<": (".<closure>.{}", 1),
    "@": (".{}", 1),  # an attribute of a thread-local
    "=": (".get()", 1),  # a context variable's value
    "~": ("", 0),  # what a proxy stands for
    "!": (".getLogger({!r})", 0),
}
#: Attributes that lead from a wrapper to what it wraps: no part of what a reader knows.
TRANSPARENT = {".__wrapped__", ".__func__"}

MISSING = object()
HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made at run time, as Python classes are
WRAPPERS = {
    id(kind) for kind in (staticmethod, classmethod, property, functools.partial, types.MethodType)
}
#: To the instances of these the table's answer is all there is.
COMPLETE = {
    id(kind)
    for kind in (
        *(types.FunctionType, types.ModuleType, type, BaseException),
        *(threading.local, contextvars.ContextVar, PromiseProxy),
    )
}

flags = type.__dict__["__flags__"].__get__


# --- the steps down from the instances of a type ------------------------------------------------


def shape_of(kind: type) -> Shape:
    """The table's answer, with the attributes that instances of this very type have."""
    if is_own(module_of(kind)):
        return LEAF
    base = next((id(base) for base in mro(kind) or () if id(base) in SHAPES), None)
    shape = SHAPES.get(base, LEAF)  # type: ignore[arg-type]  # None is in no table
    if base in COMPLETE:
        return shape
    attributes = _instance_parts(
        kind, large=lambda found: shape.least == 0 and (measure(found) or 0) > MAX_FOLLOWED_ITEMS
    )
    return shape if attributes is None else shape._replace(parts=(*shape.parts, attributes))


def _instance_parts(kind: type, *, large: Callable[[Any], bool]) -> Parts | None:
    """Attributes in the instance's dict and in its slots; ``large`` ones are not asked for all they
    refer to."""
    namespace = namespace_getter(kind)
    slots = [
        ("." + name, member.__get__)
        for base in mro(kind)
        if flags(base) & HEAP_TYPE or id(base) in WRAPPERS
        for name, member in class_dict(base).items()
        if type(member) is types.MemberDescriptorType
        and name not in UNINTERESTING
        and name != "__dict__"
    ]
    if namespace is None and not slots:
        return None

    def parts(found: Any) -> Iterator[tuple[str, Any]]:
        if namespace is not None and (large(found) or _holds_something(found)):
            yield from attributes_in(namespace(found))
        for step, get in slots:
            try:
                yield step, get(found)
            except (
                AttributeError,
                TypeError,
            ):  # an empty slot, or another class's under a name of this one's
                continue

    return parts


def _holds_something(found: object) -> bool:
    """Whether there is more among an instance's references than its class and plain values."""
    return not all(is_plain(held) or type(held) is type for held in gc.get_referents(found))


# --- from an address to what is there -----------------------------------------------------------


def resolve(address: str) -> Any:
    """What is there now; ``MISSING`` if nothing is."""
    module, *steps = address.split(SEPARATOR)
    found: Any = sys.modules.get(module, MISSING)
    for step in steps:
        if found is MISSING:
            break
        found = follow(found, step)
    return found


def follow(found: Any, step: str) -> Any:
    letter, name = step[0], step[1:]
    if letter == ".":
        return _attribute(found, name)
    if letter == "!":
        return logging.root.manager.loggerDict.get(name, MISSING) if name else logging.root
    shape = known_shape(found)
    if shape.kind == "dict":
        # Not by __getitem__, which would call a subclass's __missing__.
        return (
            dict.get(found, name if letter == "[" else int(name), MISSING)
            if letter in "[#"
            else MISSING
        )
    return next(
        (value for parts in shape.parts for known, value in parts(found) if known == step), MISSING
    )


def _attribute(found: Any, name: str) -> Any:
    # Most addresses begin and many end at a module.
    namespace = found.__dict__ if type(found) is types.ModuleType else namespace_of(found)
    if namespace is not None:
        if name == "__dict__":
            return namespace
        value = (
            namespace.get(name, MISSING)
            if type(namespace) is types.MappingProxyType
            else dict.get(namespace, name, MISSING)
        )
        if value is not MISSING:
            return value
    for base in bases_of(found):
        member = class_dict(base).get(name)
        if type(member) is types.MemberDescriptorType:
            try:
                return member.__get__(found)
            except (AttributeError, TypeError):  # the same
                break
    return MISSING


# --- in words -----------------------------------------------------------------------------------


def readable(address: str) -> str:
    """The address as people write it, the middle left out where it is too long."""
    module, *steps = address.split(SEPARATOR)
    return shortened(
        module
        + "".join(STEPS[step[0]][0].format(step[1:]) for step in steps if step not in TRANSPARENT)
    )


def shortened(path: str) -> str:
    half = MAX_PATH_LENGTH // 2
    return path if len(path) <= MAX_PATH_LENGTH else f"{path[: half - 1]}…{path[-half:]}"
