"""A dataclass as plain values, as ``dataclasses.asdict`` gives them, in a tenth of its time.

``asdict`` looks at each number and copies each list and dictionary. The fields' types tell which
of them hold records; all others are taken as they are.

Standard library only, because the agent loads it inside the worker.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple


class _Plan(NamedTuple):
    """How the records of one class are encoded."""

    names: tuple[str, ...]
    #: Answers with the values of all fields.
    values: Callable[[Any], tuple[Any, ...]]
    #: Fields that hold a record, that hold a list of records, and that may hold nothing.
    records: tuple[str, ...]
    lists: tuple[str, ...]
    optional: tuple[str, ...]


def plain(record: Any) -> dict[str, Any]:
    """The record by its fields' names, without those that are ``None``. Lists of numbers and
    dictionaries are the record's own: whoever changes one changes the other."""
    plan = _plan(type(record))  # type: ignore[arg-type]  # mypy: a class is hashable
    encoded = dict(zip(plan.names, plan.values(record), strict=True))
    for name in plan.optional:
        if encoded[name] is None:
            del encoded[name]
    for name in plan.lists:
        encoded[name] = [plain(each) for each in encoded[name]]
    for name in plan.records:
        if name in encoded:
            encoded[name] = plain(encoded[name])
    return encoded


@cache
def _plan(cls: Any) -> _Plan:
    kinds = typing.get_type_hints(cls)
    names = tuple(each.name for each in dataclasses.fields(cls))
    optional = tuple(name for name in names if isinstance(kinds[name], types.UnionType))
    known = {name: _known(kinds[name]) for name in names}
    return _Plan(
        names,
        attrgetter(*names),
        tuple(name for name in names if dataclasses.is_dataclass(known[name])),
        tuple(name for name in names if _is_list_of_records(known[name])),
        optional,
    )


def _known(kind: Any) -> Any:
    """The type of a field that is not ``None``."""
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def _is_list_of_records(kind: Any) -> bool:
    return typing.get_origin(kind) is list and dataclasses.is_dataclass(typing.get_args(kind)[0])
