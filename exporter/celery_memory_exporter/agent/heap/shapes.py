"""How the instances of each type are told apart, measured and looked into.

Sizes are those of the base type's own ``__len__``, so that no subclass's is run.
"""

from __future__ import annotations

import array
import contextvars
import functools
import io
import logging
import queue
import threading
import types
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from celery.local import PromiseProxy

from celery_memory_exporter.agent.heap.foreign import (
    MIN_IMMUTABLE_LENGTH,
    PACKAGE,
    bases_of,
    class_dict,
    is_own,
    items_of,
    module_of,
    mro,
    namespace_of,
)
from celery_memory_exporter.agent.heap.parts import (
    MAX_FOLLOWED_ITEMS,
    Parts,
    attributes_in,
    function_parts,
    indexes,
    instance_parts,
    keys,
    local_parts,
    target_of,
)
from celery_memory_exporter.agent.interruptions import let_pass

LRU_CACHE: type = type(functools.lru_cache(len))
_cache_info = LRU_CACHE.__dict__["cache_info"]
_maxlen = deque.__dict__["maxlen"].__get__


class Shape(NamedTuple):
    """How to treat the instances of a type."""

    kind: str = ""
    #: Items, bytes or characters.
    size: Callable[[Any], int] | None = None
    #: Smaller ones are constants.
    least: int = 0
    parts: tuple[Parts, ...] = ()
    #: The module that the walk will name it by, if it is not found by way of any other.
    home: Callable[[Any], Any] | None = None
    #: Most items, by construction.
    capacity: Callable[[Any], int | None] | None = None


LEAF = Shape()


def _home_of_function(function: Any) -> Any:
    """The module that binds it; ``None`` if none does; this package's name for its own."""
    if is_own(dict.get(function.__globals__, "__name__")):
        return PACKAGE
    return None if "<locals>" in function.__qualname__ else function.__module__


def _home_of_cache(cache: Any) -> Any:
    known = {
        name: value
        for name, value in items_of(namespace_of(cache))
        if type(name) is str and type(value) is str
    }
    return None if "<locals>" in known.get("__qualname__", "<locals>") else known.get("__module__")


def _cached(cache: Any) -> int:
    """How many answers of the function are in its cache."""
    items: int = _cache_info(cache).currsize
    return items


def _maxsize(cache: Any) -> int | None:
    most: int | None = _cache_info(cache).maxsize
    return most


def _allocated(buffer: Any) -> int:
    """Bytes that the buffer holds, since to ask for its content could copy that."""
    return io.BytesIO.__sizeof__(buffer) - io.BytesIO.__basicsize__


def _sized(kind: Any, *parts: Parts, least: int = 0) -> tuple[type, Shape]:
    return kind, Shape(kind.__name__, kind.__len__, least, parts)


_SHAPES: list[tuple[type, Shape]] = [
    _sized(dict, keys),
    _sized(list, indexes(list)),
    _sized(set),
    _sized(bytearray),
    _sized(array.array),
    _sized(tuple, indexes(tuple), least=MIN_IMMUTABLE_LENGTH),
    *(_sized(kind, least=MIN_IMMUTABLE_LENGTH) for kind in (str, bytes, frozenset)),
    (deque, Shape("deque", deque.__len__, parts=(indexes(deque),), capacity=_maxlen)),
    (queue.SimpleQueue, Shape("SimpleQueue", queue.SimpleQueue.qsize)),
    (io.BytesIO, Shape("BytesIO", _allocated)),
    # Where the text is written on.
    (io.StringIO, Shape("StringIO", io.StringIO.tell)),
    (LRU_CACHE, Shape("lru_cache", _cached, home=_home_of_cache, capacity=_maxsize)),
    (types.FunctionType, Shape("function", parts=(function_parts,), home=_home_of_function)),
    (type, Shape("class", parts=(lambda found: attributes_in(class_dict(found)),), home=module_of)),
    (threading.local, Shape("local", parts=(local_parts,))),
    (contextvars.ContextVar, Shape("variable", parts=(lambda found: [("=", found.get(None))],))),
    (PromiseProxy, Shape("proxy", parts=(lambda found: [("~", target_of(found))],))),
    (logging.Logger, Shape("Logger", home=lambda found: "logging")),
    (types.ModuleType, LEAF),
    (BaseException, LEAF),
]
#: By identity: a metaclass may have a ``__hash__`` of its own.
SHAPES = {id(kind): shape for kind, shape in _SHAPES}
#: To the instances of these the table's answer is all there is.
COMPLETE = {
    id(kind)
    for kind in (
        *(types.FunctionType, types.ModuleType, type, BaseException),
        *(threading.local, contextvars.ContextVar, PromiseProxy),
    )
}


def known_shape(found: object) -> Shape:
    """What the first of its classes that is in the table says."""
    shape = SHAPES.get(id(type(found)))
    if shape is not None:
        return shape
    return next((SHAPES[id(base)] for base in bases_of(found) if id(base) in SHAPES), LEAF)


def shape_of(kind: type) -> Shape:
    """The table's answer, with the attributes that instances of this very type have."""
    if is_own(module_of(kind)):
        return LEAF
    base = next((id(base) for base in mro(kind) or () if id(base) in SHAPES), None)
    shape = SHAPES.get(base, LEAF)  # type: ignore[arg-type]  # None is in no table
    if base in COMPLETE:
        return shape
    attributes = instance_parts(
        kind, large=lambda found: shape.least == 0 and (measure(found) or 0) > MAX_FOLLOWED_ITEMS
    )
    return shape if attributes is None else shape._replace(parts=(*shape.parts, attributes))


def measure(found: object) -> int | None:
    """Items, bytes or characters; ``None`` for what has no size."""
    size = known_shape(found).size
    try:
        return None if size is None else size(found)
    except ValueError as error:  # a closed text buffer
        let_pass(error)
        return None
