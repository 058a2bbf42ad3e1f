"""Several parts of a report as one: figures added up, and multiplied, field by field.

The dataclass's own fields say what there is, so that a new figure is added up without a line here.
By a value's type: numbers add up; dictionaries do by their keys, records (``KEYS``) too, histograms
by their buckets, columns age by age; of strings the last one holds; what is unknown is left out,
and is unknown still where no part knows it. ``_NO_SUMS`` says which fields are otherwise.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain, zip_longest
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

from celery_memory_exporter.common.evidence import Evidence, Holder, Site
from celery_memory_exporter.common.report import (
    Container,
    Histogram,
    LostRuns,
    ObjectCount,
    Running,
    TaskReport,
    Traffic,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)

#: What makes two records the same one.
KEYS: dict[type, Callable[[Any], Any]] = {
    Container: attrgetter("path"),
    Holder: attrgetter("path"),
    LostRuns: attrgetter("name", "reason"),
    ObjectCount: attrgetter("type"),
    Running: attrgetter("name"),
    Site: attrgetter("site", "figure"),
    TaskReport: attrgetter("name", "queue"),
    Traffic: attrgetter("name", "queue"),
}
#: Fields that hold upper bounds of histograms: no figures.
BOUNDS = frozenset({"bounds", "runtime_seconds", "queue_wait_seconds"})

_last = itemgetter(-1)
_NO_SUMS: dict[type, dict[str, Callable[[list[Any]], Any]]] = {
    Container: {"limit": _last},
    # A worker's processes are the same ones, whichever queue the runs came by.
    Evidence: dict.fromkeys(("processes", "growing", "seconds"), max),
    # It is the same container, too: its items are there once.
    Holder: {"items": max, "limit": _last, "share": _last},
    Running: {"oldest_seconds": max},
}


def total(parts: Sequence[T]) -> T:
    """One value out of several of a kind, at least one."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    if isinstance(first, Evidence):
        return _evidence(parts)  # type: ignore[arg-type, return-value]  # all are of a kind
    if isinstance(first, Histogram):
        return _histogram(parts)  # type: ignore[arg-type, return-value]
    return _by_fields(parts)


def together(records: Iterable[T]) -> list[T]:
    """Those of one key as one, in the order in which the keys first came."""
    grouped: dict[Any, list[T]] = {}
    for record in records:
        grouped.setdefault(KEYS[type(record)](record), []).append(record)
    return [total(parts) for parts in grouped.values()]


def scaled(value: T, factor: int) -> T:
    """The value with all its figures multiplied."""
    changed = {
        name: _times(getattr(value, name), factor)
        for name in _names(type(value))
        if name not in BOUNDS
    }
    return dataclasses.replace(value, **changed)


def ranked(evidence: Evidence) -> Evidence:
    """With the largest survivors, sites and holders first."""
    return dataclasses.replace(
        evidence,
        survivors=dict(sorted(evidence.survivors.items(), key=lambda each: -each[1])),
        sites=sorted(evidence.sites, key=lambda site: -site.amount),
        holders=sorted(evidence.holders, key=lambda holder: -holder.growth),
    )


def by_name(tasks: Iterable[TaskReport]) -> list[TaskReport]:
    """One report for each task name, over its queues, by name."""
    anywhere = [dataclasses.replace(task, queue="") for task in tasks]
    return sorted(together(anywhere), key=lambda task: task.name)


# --- parts ---------------------------------------------------------------------------------------


def _by_fields(parts: Sequence[T], **known: Any) -> T:
    cls = type(parts[0])
    otherwise = _NO_SUMS.get(cls, {})
    values = dict(known)
    for name in _names(cls):
        if name not in known:
            one = _last if name in BOUNDS else otherwise.get(name, _one)
            values[name] = one([getattr(part, name) for part in parts])
    return cls(**values)


@cache
def _names(cls: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _evidence(parts: Sequence[Evidence]) -> Evidence:
    """What several queues' runs of a task type, or several types under ``other``, tell together."""
    most = max(parts, key=lambda part: sum(part.profile.runs))
    # Of the queue with most runs: what other queues' runs added meanwhile is in there.
    of_most = {
        name: getattr(most, name) for name in ("fills", "overlapping", "collections", "tmpfs")
    }
    return ranked(_by_fields(parts, **of_most))


def _one(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    first = known[0]
    if isinstance(first, (int, float)):
        return sum(known)
    if isinstance(first, str):
        return known[-1]
    if isinstance(first, dict):
        return _by_keys(known)
    if isinstance(first, (list, tuple)):
        return type(first)(_items(known))
    return total(known)


def _by_keys(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    summed: Counter[str] = Counter()
    for part in parts:
        summed.update(part)
    return dict(summed)


def _histogram(parts: Sequence[Histogram]) -> Histogram:
    """The parts share their bounds."""
    counts = zip(*(part.counts for part in parts), strict=True)
    return Histogram([sum(each) for each in counts], sum(part.sum for part in parts))


def _items(parts: Sequence[Sequence[Any]]) -> Iterable[Any]:
    """Records by their keys, names once each, figures place by place: a profile ends with the last
    age that its processes reached."""
    first = next(chain.from_iterable(parts), None)
    if dataclasses.is_dataclass(first):
        return together(chain.from_iterable(parts))
    if isinstance(first, str):
        return dict.fromkeys(chain.from_iterable(parts))
    return map(sum, zip_longest(*parts, fillvalue=0.0))


def _times(value: Any, factor: int) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return factor * value
    if isinstance(value, dict):
        return {key: _times(each, factor) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_times(each, factor) for each in value)
    return scaled(value, factor)
