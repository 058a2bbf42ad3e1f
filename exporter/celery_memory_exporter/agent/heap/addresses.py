"""How a container is found again although nothing refers to it: by an address, one string.

An address is a module's name and the steps from there, each a letter of ``STEPS`` and a name. The
way from an object down to others is the work of its shape; here is the way from an address back to
what is there now, and how people write it. No foreign code is run, and no object kept.
"""

from __future__ import annotations

import logging
import sys
import types
from typing import Any, NamedTuple

from celery_memory_exporter.agent.heap.foreign import bases_of, class_dict, namespace_of
from celery_memory_exporter.agent.heap.parts import SEPARATOR
from celery_memory_exporter.agent.heap.shapes import known_shape
from celery_memory_exporter.agent.interruptions import let_pass

MAX_PATH_LENGTH = 120


class Step(NamedTuple):
    """A way to go on from an object."""

    #: How the name is written.
    written: str
    #: How much deeper it leads.
    depth: int


#: By the first letter of a step.
STEPS = {
    ".": Step(".{}", 1),  # an attribute
    "[": Step("[{!r}]", 2),  # a key
    "#": Step("[{}]", 2),  # an integer key or an index
    "(": Step("({}=)", 0),  # a default argument
    "<": Step(".<closure>.{}", 1),
    "@": Step(".{}", 1),  # an attribute of a thread-local
    "=": Step(".get()", 1),  # a context variable's value
    "~": Step("", 0),  # what a proxy stands for
    "!": Step(".getLogger({!r})", 0),
}
#: Attributes that lead from a wrapper to what it wraps: no part of what a reader knows.
TRANSPARENT = {".__wrapped__", ".__func__"}

MISSING = object()


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
    """What is one step on from an object; ``MISSING`` if nothing is."""
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
            except (AttributeError, TypeError) as error:  # the same
                let_pass(error)
                break
    return MISSING


# --- in words -----------------------------------------------------------------------------------


def readable(address: str) -> str:
    """The address as people write it, the middle left out where it is too long."""
    module, *steps = address.split(SEPARATOR)
    return shortened(module + "".join(map(written, steps)))


def written(step: str) -> str:
    """One step as people write it."""
    return "" if step in TRANSPARENT else STEPS[step[0]].written.format(step[1:])


def shortened(path: str) -> str:
    """The path itself where it fits, else its beginning and its end."""
    half = MAX_PATH_LENGTH // 2
    return path if len(path) <= MAX_PATH_LENGTH else f"{path[: half - 1]}…{path[-half:]}"
