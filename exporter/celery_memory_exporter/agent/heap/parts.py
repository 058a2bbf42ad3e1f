"""Where an object leads to: what is worth a look below it, by steps of an address.

A step is a letter of ``addresses.STEPS`` and a name. Only plain strings and integers are given out
as keys.
"""

from __future__ import annotations

import functools
import gc
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from celery_memory_exporter.agent.heap.foreign import (
    HEAP_TYPE,
    bases_of,
    class_dict,
    flags,
    has_attributes,
    is_plain,
    items_of,
    mro,
    namespace_getter,
)
from celery_memory_exporter.agent.interruptions import let_pass

#: Between the module's name and the steps of an address.
SEPARATOR = "\0"
#: The values of larger containers are data, not places.
MAX_FOLLOWED_ITEMS = 64
#: Namespaces with fewer names are code.
MIN_NAMESPACE_LENGTH = 64
MAX_KEY_LENGTH = 60
UNINTERESTING = {
    *("__doc__", "__builtins__", "__spec__", "__loader__", "__path__", "__all__"),
    *("__annotations__", "__dataclass_fields__", "__match_args__", "__slots__"),
    *("__abstractmethods__", "__parameters__"),
}
#: Types of the interpreter's own whose slots lead to what they wrap.
WRAPPERS = {
    id(kind) for kind in (staticmethod, classmethod, property, functools.partial, types.MethodType)
}

#: Steps down from an object, and what each leads to.
Parts = Callable[[Any], Iterable[tuple[str, Any]]]


def attributes_in(namespace: Any) -> Iterator[tuple[str, Any]]:
    """The names in a dict or in a class's namespace, and a large dict itself: it may be what
    grows."""
    for name, value in items_of(namespace):
        if type(name) is str and name not in UNINTERESTING and SEPARATOR not in name:
            yield "." + name, value
    if type(namespace) is dict and len(namespace) >= MIN_NAMESPACE_LENGTH:
        yield ".__dict__", namespace


def keys(found: Any) -> Iterator[tuple[str, Any]]:
    """The values of a small dict."""
    if dict.__len__(found) > MAX_FOLLOWED_ITEMS:
        return
    for key, value in items_of(found):
        if type(key) is str and len(key) <= MAX_KEY_LENGTH and SEPARATOR not in key:
            yield "[" + key, value
        elif type(key) is int and abs(key) < sys.maxsize:
            yield f"#{key}", value


def indexes(base: Any) -> Parts:
    """The items of a small sequence, read by the base type's own methods."""

    def parts(found: Any) -> Iterator[tuple[str, Any]]:
        if base.__len__(found) > MAX_FOLLOWED_ITEMS:
            return
        try:
            values = list(base.__iter__(found))
        except RuntimeError as error:  # a deque that another thread changes
            let_pass(error)
            return
        for index, value in enumerate(values):
            yield f"#{index}", value

    return parts


def function_parts(function: Any) -> Iterator[tuple[str, Any]]:
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
        except ValueError as error:  # not bound yet
            let_pass(error)
    if has_attributes(function):
        yield from attributes_in(function.__dict__)


def local_parts(local: Any) -> Iterator[tuple[str, Any]]:
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
    except AttributeError as error:
        let_pass(error)
        return None


def instance_parts(kind: type, *, large: Callable[[Any], bool]) -> Parts | None:
    """Attributes in an instance's dict and in its slots, for the instances of this very type;
    ``None`` where these can have none.

    An instance's ``__dict__`` is asked for only if something of interest is in it: until then
    Python need not have built it. ``large`` ones are not asked for all they refer to.
    """
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
                value = get(found)
            except (AttributeError, TypeError) as error:
                let_pass(error)  # else an empty slot, or another class's of this name
                continue
            yield step, value

    return parts


def _holds_something(found: object) -> bool:
    """Whether there is more among an instance's references than its class and plain values."""
    return not all(is_plain(held) or type(held) is type for held in gc.get_referents(found))
