"""How the application's objects are read without running any of their code.

* Types are read past their metaclass and told apart by identity. Attributes are read through the
  interpreter's own descriptors.
* An object that another thread changes meanwhile is read as empty. Nothing that is read is kept.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Callable
from itertools import islice
from typing import Any

from celery_memory_exporter.agent.interruptions import let_pass

#: Entries of one namespace or dict that are read.
MAX_ENTRIES = 5_000
#: Shorter strings and tuples are constants.
MIN_IMMUTABLE_LENGTH = 256
PACKAGE = __name__.partition(".")[0]
#: Py_TPFLAGS_HEAPTYPE among the ``flags`` of a type: made at run time, as Python classes are.
HEAP_TYPE = 1 << 9

#: Types of values that hold nothing, by identity: a metaclass may have a ``__hash__`` of its own.
PLAIN = {
    id(kind)
    for kind in (
        *(int, float, complex, bool, range, slice, object, memoryview),
        *(type(None), type(...), type(NotImplemented)),
        *(types.BuiltinFunctionType, types.CodeType, types.FrameType, types.TracebackType),
        *(types.MappingProxyType, types.MemberDescriptorType, types.GetSetDescriptorType),
        *(types.MethodDescriptorType, types.WrapperDescriptorType),
    )
}

class_dict = type.__dict__["__dict__"].__get__
name_of = type.__dict__["__name__"].__get__
home_of = type.__dict__["__module__"].__get__
mro = type.__dict__["__mro__"].__get__
flags = type.__dict__["__flags__"].__get__


class _Instance:
    """A class written in Python."""


#: How Python describes the ``__dict__`` of classes that are written in it.
PYTHONS_OWN = class_dict(_Instance)["__dict__"].__doc__


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
    """Reads the real ``__dict__`` of this type's instances; ``None`` if they have none, or one that
    only foreign code can tell.

    A library's type in C may answer by whatever code it likes: a proxy asks the object that it
    stands for, and a lazy one makes it then.
    """
    getter = None
    for base in mro(kind) or ():
        descriptor = class_dict(base).get("__dict__")
        if type(descriptor) is types.MemberDescriptorType:
            return getter or descriptor.__get__
        if type(descriptor) is types.GetSetDescriptorType:
            # Python's own getter asks that of a base in C, if there is one.
            if not (descriptor.__doc__ == PYTHONS_OWN or _is_standard(base)):
                return None
            getter = getter or descriptor.__get__
    return getter


def _is_standard(kind: type) -> bool:
    """Whether this is a class of the standard library, found where it says it is."""
    home = home_of(kind)
    if type(home) is not str or home not in sys.stdlib_module_names:
        return False
    module = sys.modules.get(home)
    space = module.__dict__ if type(module) is types.ModuleType else {}
    return space.get(name_of(kind)) is kind or kind is types.FunctionType


def items_of(mapping: Any) -> list[tuple[Any, Any]]:
    """The first entries of a dict or of a class's namespace; none if another thread changes it
    meanwhile."""
    entries = mapping.items() if type(mapping) is types.MappingProxyType else dict.items(mapping)
    try:
        return list(islice(entries, MAX_ENTRIES))
    except RuntimeError as error:
        let_pass(error)
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
    return _is_bare(found) if kind is types.FunctionType else id(kind) in PLAIN


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
    return not has_attributes(function)


def has_attributes(function: Any) -> bool:
    """To ask a function for its ``__dict__`` would make one for good."""
    known = {id(function.__globals__), id(function.__builtins__), id(function.__kwdefaults__)}
    return any(type(held) is dict and id(held) not in known for held in gc.get_referents(function))
