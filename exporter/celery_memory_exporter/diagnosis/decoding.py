"""The JSON that ``/api/v1/diagnosis`` answers with, back into a ``Diagnosis``.

For programs that ask a running exporter. That one may be of another version: keys that it has more
are left out, but each field that this version knows has to be there, of its type.
"""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, TypeVar

from celery_memory_exporter.diagnosis.verdict import Diagnosis


class DecodeError(ValueError):
    """An answer that is no diagnosis of this version; the message says where and what."""


def decode(raw: object) -> Diagnosis:
    """Reads what became of a ``Diagnosis`` by ``dataclasses.asdict`` and JSON.

    Raises ``DecodeError`` where a field is missing or of another type.
    """
    return _read_dataclass(Diagnosis, raw, "diagnosis")


T = TypeVar("T")
SCALARS = (bool, int, float, str)


@cache
def _fields(cls: Any) -> dict[str, Any]:
    """The type of each field of a dataclass."""
    return typing.get_type_hints(cls)


def _read_dataclass(cls: type[T], raw: object, path: str) -> T:
    values = _checked(dict, raw, path)
    fields = _fields(cls)  # type: ignore[arg-type]  # mypy: a class is hashable
    for name in fields:
        if name not in values:
            raise DecodeError(f"{path}.{name}: missing")
    return cls(**{name: _read(fields[name], values[name], f"{path}.{name}") for name in fields})


def _read(kind: Any, raw: object, path: str) -> Any:
    """``kind`` is a dataclass, a tuple of any length, a scalar, or one of these or ``None``."""
    if typing.get_origin(kind) is types.UnionType:
        return None if raw is None else _read(typing.get_args(kind)[0], raw, path)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        values = _checked(list, raw, path)
        return tuple([_read(item, each, f"{path}[{at}]") for at, each in enumerate(values)])
    if kind in SCALARS:
        return _checked(kind, raw, path)
    return _read_dataclass(kind, raw, path)


def _checked(kind: type, raw: object, path: str) -> Any:
    """A whole number is a number as well; a truth value is none."""
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(raw, accepted) or (isinstance(raw, bool) and kind is not bool):
        raise DecodeError(f"{path}: expected {kind.__name__}, found {str(raw)[:40]!r}")
    return raw
