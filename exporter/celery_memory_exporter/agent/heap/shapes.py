"""How the application's objects are told apart, measured and looked into without running any of
their code.

* Types are read past their metaclass and told apart by identity. Attributes are read through the
  interpreter's own descriptors, sizes by the base type's own ``__len__``. Only plain strings and
  integers are given out as keys.
* An object that another thread changes meanwhile is read as empty. Nothing that is read is kept.

What an object leads to is given in steps of an address: a letter of ``addresses.STEPS`` and a name.
"""

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
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from celery.local import PromiseProxy

MAX_NODES_PER_MODULE = 5_000
#: The values of larger containers are data, not places.
MAX_FOLLOWED_ITEMS = 64
#: Shorter strings and tuples are constants; namespaces with fewer names are code.
MIN_IMMUTABLE_LENGTH = 256
MIN_NAMESPACE_LENGTH = 64
MAX_KEY_LENGTH = 60
PACKAGE = __name__.partition(".")[0]
SEPARATOR = "\0"
UNINTERESTING = {
    *("__doc__", "__builtins__", "__spec__", "__loader__", "__path__", "__all__"),
    *(
        "__annotations__",
        "__dataclass_fields__",
        "__match_args__",
        "__slots__",
        "__abstractmethods__",
        "__parameters__",
    ),
}

Parts = Callable[[Any], Iterable[tuple[str, Any]]]

LRU_CACHE: type = type(functools.lru_cache(len))

class_dict = type.__dict__["__dict__"].__get__
mro = type.__dict__["__mro__"].__get__


# --- reading foreign objects --------------------------------------------------------------------


def bases_of(found: object) -> tuple[type, ...]:
    """The classes of an object, whatever it claims by ``__class__``."""
    return mro(type(found)) or ()


def is_class(found: object) -> bool:
    return any(base is type for base in bases_of(found))


def module_of(kind: type) -> Any:
    """The name of the module that says it made this class; ``None`` for the interpreter's own."""
    return class_dict(kind).get("__module__")


def namespace_of(found: object) -> Any:
    """The real ``__dict__`` of an object, a class or a module; ``None`` if it has none."""
    get = namespace_getter(type(found))
    return None if get is None else get(found)


def namespace_getter(kind: type) -> Callable[[Any], Any] | None:
    for base in mro(kind) or ():
        descriptor = class_dict(base).get("__dict__")
        if (
            type(descriptor) is types.GetSetDescriptorType
            or type(descriptor) is types.MemberDescriptorType
        ):
            return descriptor.__get__
    return None


def items_of(mapping: Any) -> list[tuple[Any, Any]]:
    """The first entries of a dict or of a class's namespace; none if another thread changes it
    meanwhile."""
    entries = mapping.items() if type(mapping) is types.MappingProxyType else dict.items(mapping)
    try:
        return list(islice(entries, MAX_NODES_PER_MODULE))
    except RuntimeError:
        return []


def is_own(name: object) -> bool:
    """Whether this is a module of the agent's. The demo application is measured like any other."""
    if type(name) is not str or not name.startswith(PACKAGE):
        return False
    return (name + ".").startswith(PACKAGE + ".") and not name.startswith(PACKAGE + ".demo")


def is_plain(found: Any) -> bool:
    """Whether this is a value that holds nothing; what most attributes are."""
    kind = type(found)
    if kind is str:
        return len(found) < MIN_IMMUTABLE_LENGTH
    return _is_bare(found) if kind is types.FunctionType else id(kind) in LEAVES


def _is_default(found: Any) -> bool:
    """Whether a default argument is plain; a function among them may be the very one that is asked
    about."""
    return type(found) is not types.FunctionType and is_plain(found)


def _is_bare(function: Any) -> bool:
    """Whether a plain function (no class can derive from that type) is nothing but code: five of
    six are."""
    if (
        function.__closure__
        or function.__kwdefaults__
        or not all(map(_is_default, function.__defaults__ or ()))
    ):
        return False
    return not _has_attributes(function)


def _has_attributes(function: Any) -> bool:
    """To ask a function for its ``__dict__`` would make one for good."""
    known = {id(function.__globals__), id(function.__builtins__), id(function.__kwdefaults__)}
    return any(type(held) is dict and id(held) not in known for held in gc.get_referents(function))


# --- where objects lead to ----------------------------------------------------------------------


def attributes_in(namespace: Any) -> Iterator[tuple[str, Any]]:
    for name, value in items_of(namespace):
        if type(name) is str and name not in UNINTERESTING and SEPARATOR not in name:
            yield "." + name, value
    if type(namespace) is dict and len(namespace) >= MIN_NAMESPACE_LENGTH:
        yield ".__dict__", namespace


def _keys(found: Any) -> Iterator[tuple[str, Any]]:
    if dict.__len__(found) > MAX_FOLLOWED_ITEMS:
        return
    for key, value in items_of(found):
        if type(key) is str and len(key) <= MAX_KEY_LENGTH and SEPARATOR not in key:
            yield "[" + key, value
        elif type(key) is int and abs(key) < sys.maxsize:
            yield f"#{key}", value


def _indexes(base: Any) -> Parts:
    def parts(found: Any) -> Iterator[tuple[str, Any]]:
        if base.__len__(found) > MAX_FOLLOWED_ITEMS:
            return
        try:
            values = list(base.__iter__(found))
        except RuntimeError:  # a deque that another thread changes
            return
        for index, value in enumerate(values):
            yield f"#{index}", value

    return parts


def _function_parts(function: Any) -> Iterator[tuple[str, Any]]:
    """Default arguments, closure and attributes; not of a bare one."""
    code, defaults, keyword_defaults = (
        function.__code__,
        function.__defaults__,
        function.__kwdefaults__,
    )
    if type(defaults) is tuple:
        yield from zip(
            ("(" + name for name in code.co_varnames[: code.co_argcount][-len(defaults) :]),
            defaults,
            strict=False,
        )
    if keyword_defaults is not None:
        yield from (
            ("(" + name, value) for name, value in items_of(keyword_defaults) if type(name) is str
        )
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield "<" + name, cell.cell_contents
        except ValueError:  # not bound yet
            continue
    if _has_attributes(function):
        yield from attributes_in(function.__dict__)


def _local_parts(local: Any) -> Iterator[tuple[str, Any]]:
    """The current thread's attributes. A class's own ``__init__`` would be run for a thread that is
    new to it."""
    for base in bases_of(local):
        if base is threading.local:
            yield from (
                ("@" + step[1:], value)
                for step, value in attributes_in(base.__getattribute__(local, "__dict__"))
            )
        if "__init__" in class_dict(base):
            return


def target_of(proxy: Any) -> Any:
    """The task that a name in an application's module stands for; ``None`` until somebody uses
    it."""
    try:
        return object.__getattribute__(proxy, "__thing")
    except AttributeError:
        return None


# --- what is known of each type -----------------------------------------------------------------


class Shape(NamedTuple):
    """How to treat the instances of a type."""

    kind: str = ""
    size: Callable[[Any], int] | None = None
    least: int = 0
    parts: tuple[Parts, ...] = ()
    #: The module that the walk will name it by, if it is not found by way of any other.
    home: Callable[[Any], Any] | None = None
    #: Most items, by construction.
    limit: Callable[[Any], int | None] | None = None


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


def _sized(kind: Any, *parts: Parts, least: int = 0) -> tuple[type, Shape]:
    return kind, Shape(kind.__name__, kind.__len__, least, parts)


LEAF = Shape()
_SHAPES: list[tuple[type, Shape]] = [
    _sized(dict, _keys),
    _sized(list, _indexes(list)),
    _sized(set),
    _sized(bytearray),
    _sized(array.array),
    _sized(tuple, _indexes(tuple), least=MIN_IMMUTABLE_LENGTH),
    *(_sized(kind, least=MIN_IMMUTABLE_LENGTH) for kind in (str, bytes, frozenset)),
    (
        deque,
        Shape(
            "deque", deque.__len__, parts=(_indexes(deque),), limit=deque.__dict__["maxlen"].__get__
        ),
    ),
    (queue.SimpleQueue, Shape("SimpleQueue", queue.SimpleQueue.qsize)),
    # Bytes allocated, since to ask for the content could copy it; and where a text is written on.
    (
        io.BytesIO,
        Shape("BytesIO", lambda found: io.BytesIO.__sizeof__(found) - io.BytesIO.__basicsize__),
    ),
    (io.StringIO, Shape("StringIO", io.StringIO.tell)),
    (
        LRU_CACHE,
        Shape(
            "lru_cache",
            lambda found: LRU_CACHE.cache_info(found).currsize,  # type: ignore[attr-defined]
            home=_home_of_cache,
            limit=lambda found: LRU_CACHE.cache_info(found).maxsize,  # type: ignore[attr-defined]
        ),
    ),
    (types.FunctionType, Shape("function", parts=(_function_parts,), home=_home_of_function)),
    (type, Shape("class", parts=(lambda found: attributes_in(class_dict(found)),), home=module_of)),
    (threading.local, Shape("local", parts=(_local_parts,))),
    (contextvars.ContextVar, Shape("variable", parts=(lambda found: [("=", found.get(None))],))),
    (PromiseProxy, Shape("proxy", parts=(lambda found: [("~", target_of(found))],))),
    (logging.Logger, Shape("Logger", home=lambda found: "logging")),
    (types.ModuleType, LEAF),
    (BaseException, LEAF),
]
#: By identity: a metaclass may have a ``__hash__`` of its own.
SHAPES = {id(kind): shape for kind, shape in _SHAPES}
LEAVES = {
    id(kind)
    for kind in (
        *(
            int,
            float,
            complex,
            bool,
            type(None),
            type(...),
            type(NotImplemented),
            range,
            slice,
            object,
            memoryview,
        ),
        *(
            types.BuiltinFunctionType,
            types.CodeType,
            types.FrameType,
            types.TracebackType,
            types.MappingProxyType,
        ),
        *(
            types.MemberDescriptorType,
            types.GetSetDescriptorType,
            types.MethodDescriptorType,
            types.WrapperDescriptorType,
        ),
    )
}


def known_shape(found: object) -> Shape:
    """What the first of its classes that is in the table says."""
    shape = SHAPES.get(id(type(found)))
    if shape is not None:
        return shape
    return next((SHAPES[id(base)] for base in bases_of(found) if id(base) in SHAPES), LEAF)


def measure(found: object) -> int | None:
    """Items, bytes or characters; ``None`` for what has no size."""
    size = known_shape(found).size
    try:
        return None if size is None else size(found)
    except ValueError:  # a closed text buffer
        return None
