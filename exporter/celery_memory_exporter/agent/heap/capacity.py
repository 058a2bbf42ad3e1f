"""How much a container of the application's own can hold: by the code that takes items out of it
when it is full.

``deque(maxlen=…)`` and ``lru_cache(maxsize=…)`` tell it by themselves. Of a cache that somebody
wrote, the code tells: a function that names the container, asks for a size and takes items out is
its bound, or several of one class that do so together; and the numbers that they compare with may
be its capacity, or what they multiply it by. Which of them is shows by itself: one that the
container has grown past is none. So a cache that still fills is not taken for a leak, and a leak is
taken for a cache no longer than until it has grown past that number.

Code objects and namespaces are read, nothing is run, and only numbers are kept.
"""

from __future__ import annotations

import dis
import re
import types
from collections.abc import Iterator, Set
from typing import Any

from celery.app.task import Task
from celery.local import PromiseProxy

from celery_memory_exporter.agent.heap.addresses import MISSING, resolve
from celery_memory_exporter.agent.heap.foreign import (
    HEAP_TYPE,
    bases_of,
    class_dict,
    flags,
    is_class,
    items_of,
    mro,
    namespace_of,
)
from celery_memory_exporter.agent.heap.parts import SEPARATOR, target_of
from celery_memory_exporter.agent.interruptions import let_pass

#: Steps of an address that name something in code: attributes, also of thread-locals, default
#: arguments, closures.
NAMING = ".@(<"
DELETE_SUBSCR = dis.opmap["DELETE_SUBSCR"]
REMOVALS = frozenset(
    {"__delitem__", "clear", "discard", "heappop", "pop", "popitem", "popleft", "remove"}
)
SIZES = re.compile(r"^len$|size|max|limit|capacity|bound", re.IGNORECASE)
#: ``size`` in small letters is what there is, not what there may be.
CAPACITIES = re.compile(r"(?i:max|limit|capacity|bound)|SIZE")
#: Numbers of something else, whatever they are compared with.
TIMES = re.compile(r"time|second|minute|hour|_age|retr|attempt|depth", re.IGNORECASE)
#: Flags, indexes and the like are no capacities.
LEAST_CAPACITY = 8
#: A cache that may outgrow its capacity by a share of it is pruned before it is twice as large.
MOST_OUTGROWN = 2
#: Instructions between a number and its comparison (``number % 100 == 0``), and between a container
#: and what takes out of it.
COMPARED, BESIDE = 5, 2


def capacities_of(address: str) -> tuple[int, ...]:
    """Numbers that may be the capacity of the container at this address, ascending; empty where no
    code takes items out of it by size."""
    name, owner = _name_and_owner(address)
    numbers: set[int] = set()
    if type(owner) is types.ModuleType:
        for function in _functions_of_module(owner):
            if name in _names(function.__code__) and _takes_from(function.__code__, name):
                numbers |= _numbers(function, None)
    numbers |= _numbers_of(owner, {name}) | _numbers_of(resolve(address), frozenset())
    return tuple(sorted(numbers))


def _numbers_of(bound: Any, named: Set[str]) -> set[int]:
    """Those of the methods that take items out by size; and of those that ask for the size, where
    it is another one that takes out. These have to name what they ask of."""
    functions = list(_functions_of(bound))
    removes = any(_removes(each.__code__) for each in functions)
    numbers: set[int] = set()
    for function in functions:
        code = function.__code__
        if _takes_out(code) or (removes and "len" in code.co_names and named <= _names(code)):
            numbers |= _numbers(function, bound)
    return numbers


def _name_and_owner(address: str) -> tuple[str, Any]:
    """The last name on the way, and whatever has it: a module, a class, an instance or a
    function."""
    steps = address.split(SEPARATOR)
    while len(steps) > 2 and steps[-1][0] not in NAMING:
        steps.pop()
    return steps[-1][1:], resolve(SEPARATOR.join(steps[:-1]))


# --- which code ---------------------------------------------------------------------------------


def _functions_of_module(module: Any) -> Iterator[types.FunctionType]:
    """Its functions, and its classes' methods, under whatever decorators."""
    for _, value in items_of(namespace_of(module)):
        if is_class(value):
            yield from _functions_of_class(value)
        else:
            yield from _unwrapped(value)


def _functions_of(owner: Any) -> Iterator[types.FunctionType]:
    """A function itself; a class's methods; those of an instance's classes which are written in
    Python."""
    if owner is MISSING or type(owner) is types.ModuleType:
        return
    if type(owner) is types.FunctionType:
        yield owner
        return
    for kind in (mro(owner) or ()) if is_class(owner) else bases_of(owner):
        if flags(kind) & HEAP_TYPE:
            yield from _functions_of_class(kind)


def _functions_of_class(kind: Any) -> Iterator[types.FunctionType]:
    for _, value in items_of(class_dict(kind)):
        yield from _unwrapped(value)


def _unwrapped(value: Any) -> Iterator[types.FunctionType]:
    """The function itself, and those that it is wrapped around or made of: decorators', a task's
    (``run`` of its class)."""
    kind = type(value)
    if kind is staticmethod or kind is classmethod:
        yield from _unwrapped(value.__func__)
    elif kind is types.FunctionType:
        yield value
        yield from (held for held in _closure(value).values() if type(held) is types.FunctionType)
    elif kind is PromiseProxy:
        yield from _unwrapped(target_of(value))
    elif any(base is Task for base in bases_of(value)):
        yield from _functions_of_class(kind)
    else:
        space = namespace_of(value)
        if type(space) is dict and type(wrapped := space.get("__wrapped__")) is types.FunctionType:
            yield wrapped


# --- what it says -------------------------------------------------------------------------------


def _names(code: types.CodeType) -> set[str]:
    """Globals, attributes and closure variables that it names."""
    return {*code.co_names, *code.co_freevars}


def _takes_out(code: types.CodeType) -> bool:
    """Whether it takes items out of something, by some size."""
    return _removes(code) and any(map(SIZES.search, _names(code)))


def _removes(code: types.CodeType) -> bool:
    return not REMOVALS.isdisjoint(_names(code)) or _deletes(code)


def _takes_from(code: types.CodeType, name: str) -> bool:
    """The same, out of what has this name: a module's functions take items out of many things."""
    if not _takes_out(code):
        return False
    named = [instruction.argval for instruction in dis.get_instructions(code)]
    places = [at for at, value in enumerate(named) if value == name]
    beside = (named[max(0, at - BESIDE) : at + BESIDE + 1] for at in places)
    return _deletes(code) or any(
        value in REMOVALS for values in beside for value in values if type(value) is str
    )


def _deletes(code: types.CodeType) -> bool:
    return DELETE_SUBSCR in code.co_code[::2]


def _numbers(function: types.FunctionType, owner: Any) -> set[int]:
    """The numbers that it compares something with, and those of its owner's attributes that are
    called a capacity."""
    instructions = [
        each
        for each in dis.get_instructions(function.__code__)
        if each.opname.startswith(("LOAD", "COMPARE"))
    ]
    attributes = _integers(function, _spaces_of(owner))
    variables = _integers(function, [_closure(function), function.__globals__]) | attributes
    numbers = {
        value
        for name, value in attributes.items()
        if CAPACITIES.search(name) and not TIMES.search(name)
    }
    for at, instruction in enumerate(instructions):
        if instruction.opname == "COMPARE_OP":
            for before in instructions[max(0, at - COMPARED) : at]:
                value = before.argval
                if type(value) is int:
                    numbers.add(value)
                elif (
                    type(value) is str and before.opname != "LOAD_CONST" and not TIMES.search(value)
                ):
                    numbers.add(variables.get(value, 0))
    if any(map(_multiplies, dis.get_instructions(function.__code__))):
        numbers |= {MOST_OUTGROWN * number for number in numbers}
    return {number for number in numbers if number >= LEAST_CAPACITY}


def _multiplies(instruction: dis.Instruction) -> bool:
    """``BINARY_MULTIPLY`` before Python 3.11."""
    return instruction.opname == "BINARY_MULTIPLY" or (
        instruction.opname == "BINARY_OP" and instruction.argrepr == "*"
    )


def _spaces_of(owner: Any) -> list[Any]:
    """Where its attributes are: its classes, its slots and itself."""
    if owner is None:
        return []
    if is_class(owner):
        return [*map(class_dict, reversed(mro(owner) or ()))]
    bases = [*map(class_dict, reversed(bases_of(owner)))]
    return [*bases, _slots_of(owner, bases), namespace_of(owner)]


def _slots_of(owner: Any, bases: list[Any]) -> dict[str, Any]:
    """What Python's own descriptors of ``__slots__`` have."""
    values = {}
    for space in bases:
        for name, slot in items_of(space):
            if type(slot) is types.MemberDescriptorType:
                try:
                    values[name] = slot.__get__(owner)
                except AttributeError as error:  # not set
                    let_pass(error)
    return values


def _integers(function: types.FunctionType, spaces: list[Any]) -> dict[str, int]:
    """The integers in these namespaces among what the function names; later ones go before earlier
    ones."""
    names = _names(function.__code__)
    found: dict[str, int] = {}
    for space in spaces:
        if type(space) is dict or type(space) is types.MappingProxyType:
            found |= {name: value for name in names if type(value := space.get(name)) is int}
    return found


def _closure(function: types.FunctionType) -> dict[str, Any]:
    variables = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            variables[name] = cell.cell_contents
        except ValueError as error:  # not bound yet
            let_pass(error)
    return variables
