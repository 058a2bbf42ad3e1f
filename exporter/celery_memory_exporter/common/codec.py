"""Reports as plain values for Celery's JSON serializer, and back.

Standard library only, because the agent loads it inside the worker. ``decode`` trusts nothing: it
answers with a complete ``WorkerReport`` or raises one ``DecodeError`` whose ``reason`` is a metric
label from the closed set ``REASONS``.
"""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from functools import cache
from typing import Any, TypeVar

from celery_memory_exporter.common.encoding import plain
from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Profile
from celery_memory_exporter.common.names import printable
from celery_memory_exporter.common.report import (
    HISTORY,
    VERSION,
    Histogram,
    LostRuns,
    ProcessReport,
    TaskReport,
    Traffic,
    WorkerReport,
)

#: A message above this is refused before it is parsed. A worker at every default cap sends some 200
#: kB.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_LIST_ITEMS = 5_000
MAX_STRING_LENGTH = 1_000
#: An identity is never shortened, so a longer one is refused.
MAX_NODENAME_LENGTH = 255
#: Beyond what JSON readers in other languages hold exactly; no byte count of a real machine comes
#: near.
MAX_NUMBER = 2**62

#: Why a report was refused. ``stale`` and ``duplicate`` are the fleet's to say, the others
#: ``decode``'s and the receiver's.
REASONS = ("oversized", "undecodable", "malformed", "version", "duplicate", "stale", "capacity")


class DecodeError(ValueError):
    """A report that cannot be used. ``reason`` is one of ``REASONS``; the message says where and
    what."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def encode(report: WorkerReport | TaskReport | Traffic | LostRuns) -> dict[str, Any]:
    """A report, or a part of one, as plain values for Celery's JSON serializer; absent figures are
    left out. Lists of numbers are the report's own."""
    return plain(report)


def decode(raw: object) -> WorkerReport:
    """Reads what ``encode`` made, after it came over the network.

    Raises ``DecodeError`` with reason ``version`` for a report of another version and ``malformed``
    for anything that is not one: a missing key, a wrong type, a number that is not finite, negative
    where only positive makes sense, or too large, a list or a string beyond the caps, a histogram
    that does not fit its bounds.
    """
    if isinstance(raw, dict) and raw.get("version", VERSION) != VERSION:
        raise DecodeError(
            "version", f"report version {str(raw['version'])[:40]!r}, this exporter reads {VERSION}"
        )
    report = _read_dataclass(WorkerReport, raw, "report")
    _check(report)
    return report


T = TypeVar("T")


@cache
def _shape(cls: Any) -> dict[str, tuple[Any, bool]]:
    """For each field of a dataclass, its type and whether it may be left out."""
    hints = typing.get_type_hints(cls)
    shape = {}
    for each in dataclasses.fields(cls):
        has_default = (
            each.default is not dataclasses.MISSING
            or each.default_factory is not dataclasses.MISSING
        )
        shape[each.name] = (
            hints[each.name],
            has_default or isinstance(hints[each.name], types.UnionType),
        )
    return shape


def _read_dataclass(cls: type[T], raw: object, path: str) -> T:
    if not isinstance(raw, dict):
        raise _malformed(path, "an object", raw)
    values = {}
    for name, (kind, optional) in _shape(cls).items():  # type: ignore[arg-type]  # mypy: a class is hashable
        if raw.get(name) is not None:
            values[name] = _read(kind, raw[name], f"{path}.{name}")
        elif not optional:
            raise DecodeError("malformed", f"{path}.{name}: missing")
        elif isinstance(kind, types.UnionType):
            values[name] = None
    return cls(**values)


def _read(kind: Any, raw: object, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is types.UnionType:
        return _read(typing.get_args(kind)[0], raw, path)
    if origin is list:
        if not isinstance(raw, list) or len(raw) > MAX_LIST_ITEMS:
            raise _malformed(path, f"a list of at most {MAX_LIST_ITEMS} items", raw)
        (item,) = typing.get_args(kind)
        return [_read(item, value, f"{path}[{index}]") for index, value in enumerate(raw)]
    if origin is dict:
        if not isinstance(raw, dict) or len(raw) > MAX_LIST_ITEMS:
            raise _malformed(path, f"an object of at most {MAX_LIST_ITEMS} keys", raw)
        _, item = typing.get_args(kind)
        return {
            _read(str, key, path): _read(item, value, f"{path}.{key}") for key, value in raw.items()
        }
    if kind is str:
        if not isinstance(raw, str) or len(raw) > MAX_STRING_LENGTH:
            raise _malformed(path, f"a string of at most {MAX_STRING_LENGTH} characters", raw)
        return printable(raw)
    if kind is int or kind is float:
        return _read_number(kind, raw, path)
    return _read_dataclass(kind, raw, path)


def _read_number(kind: type[int] | type[float], raw: object, path: str) -> int | float:
    if isinstance(raw, bool) or not isinstance(raw, int if kind is int else (int, float)):
        raise _malformed(path, "an integer" if kind is int else "a number", raw)
    # Not math.isfinite, which cannot take an integer beyond a float's range. NaN compares false.
    if not abs(raw) <= MAX_NUMBER:
        raise _malformed(path, "a finite number within 2**62", raw)
    return raw


def count_of(value: object, most: int = MAX_NUMBER) -> int | None:
    """The value if it is a count from 0 to ``most``, and ``None`` for anything else that came over
    the network."""
    return (
        value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
        else None
    )


def _malformed(path: str, expected: str, found: object) -> DecodeError:
    return DecodeError(
        "malformed",
        f"{path}: expected {expected}, found {type(found).__name__} {str(found)[:40]!r}",
    )


#: The only figures of a report that may be below zero; besides those of a profile, an estimate, and
#: a history.
SIGNED = frozenset(
    {"gains", "growth", "sum", "retained_blocks", "retained_native_bytes", "failed_bytes", "amount"}
    | {"retained_history"}
)


def _check(report: WorkerReport) -> None:
    """Raises ``DecodeError`` for what the types alone do not rule out."""
    if not 1 <= len(report.worker) <= MAX_NODENAME_LENGTH:
        raise DecodeError("malformed", f"report.worker: {len(report.worker)} characters")
    for name in ("runtime_seconds", "queue_wait_seconds", "delta_bytes", "peak_bytes"):
        bounds = getattr(report.bounds, name)
        if not bounds or any(low >= high for low, high in itertools.pairwise(bounds)):
            raise DecodeError("malformed", f"report.bounds.{name}: not ascending")
    for task in report.tasks:
        _check_histogram(task.delta, report.bounds.delta_bytes, f"delta of {task.name}")
        if task.peak is not None:
            _check_histogram(task.peak, report.bounds.peak_bytes, f"peak of {task.name}")
        _check_evidence(task)
    for traffic in report.traffic:
        _check_histogram(
            traffic.runtime, report.bounds.runtime_seconds, f"runtime of {traffic.name}"
        )
        _check_histogram(
            traffic.queue_wait, report.bounds.queue_wait_seconds, f"queue wait of {traffic.name}"
        )
    _check_processes(report.processes)
    parts: list[Any] = [report, report.instance, report.cgroup]
    parts += [
        *report.processes,
        *report.tasks,
        *report.objects,
        *report.lost,
        *report.containers,
        *report.main_containers,
        *report.traffic,
        *report.running,
    ]
    for part in parts:
        _check_positive(part)


def _check_processes(processes: list[ProcessReport]) -> None:
    names = [process.process for process in processes]
    if len(set(names)) < len(names):
        raise DecodeError("malformed", "report.processes: a process is told twice")
    for process in processes:
        if any(len(point) != len(HISTORY) for point in process.history):
            raise DecodeError(
                "malformed", f"report.processes.history: not {len(HISTORY)} figures each"
            )
        if len(process.retained_history) not in (0, len(process.history)):
            raise DecodeError("malformed", "report.processes.retained_history: not one a point")


#: A fill begins where start-up ends.
FILL_AGES = len(AGES) - AGES.index(WARM_RUNS)
#: Columns of a profile that count runs.
COUNTS = (
    "runs",
    "audited",
    "shared_rises",
    "squares",
    "large_squares",
    "sampled",
    "sampled_squares",
)


def _check_evidence(task: TaskReport) -> None:
    if task.evidence is None:
        return
    profile = task.evidence.profile
    columns = {each.name: getattr(profile, each.name) for each in dataclasses.fields(Profile)}
    if len(profile.runs) > len(AGES) or any(
        len(column) != len(profile.runs) for column in columns.values()
    ):
        raise DecodeError(
            "malformed", f"profile of {task.name}: columns of different or too many ages"
        )
    if any(min(columns[name], default=0) < 0 for name in COUNTS):
        raise DecodeError("malformed", f"profile of {task.name}: below zero")
    if any(
        len(fill.gains) != len(fill.runs) or len(fill.runs) > FILL_AGES
        for fill in task.evidence.fills
    ):
        raise DecodeError(
            "malformed", f"fills of {task.name}: columns of different or too many ages"
        )
    for part in (task.evidence, *task.evidence.sites, *task.evidence.holders, *task.evidence.fills):
        _check_positive(part)


def _check_histogram(histogram: Histogram, bounds: list[float], what: str) -> None:
    if len(histogram.counts) != len(bounds) + 1 or min(histogram.counts) < 0:
        raise DecodeError(
            "malformed", f"{what}: {len(histogram.counts)} counts do not fit {len(bounds)} bounds"
        )


def _check_positive(part: Any) -> None:
    for name in _shape(type(part)):  # type: ignore[arg-type]  # the same
        value = getattr(part, name)
        numbers = (
            value.values()
            if isinstance(value, dict)
            else value
            if isinstance(value, list)
            else (value,)
        )
        if name not in SIGNED and any(
            isinstance(each, (int, float)) and each < 0 for each in numbers
        ):
            raise DecodeError("malformed", f"{type(part).__name__}.{name}: below zero")
