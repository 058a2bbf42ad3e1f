"""What a pool child tells its main process, record by record, and how a record becomes the bytes
that go through the pipe.

Each record is cumulative: it replaces the one of its kind that the child sent before (of the same
task type, where it has one), so one that is lost or sent twice costs nothing. ``marshal`` is the
fastest serializer there is, and main process and child are forks of one program; it takes plain
tuples and no subclass of them.
"""

from __future__ import annotations

import dataclasses
import marshal
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

from celery_memory_exporter.agent.heap.census import TypeCount
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.meter.books import Costs
from celery_memory_exporter.agent.stats.tally import TaskKey
from celery_memory_exporter.agent.worker.figures import OwnFigures

#: Linux guarantees that so many bytes are written whole or not at all; POSIX only 512.
PIPE_BUF = 4096
#: Room for everything in a record of counts of types but the types: its kind, the pid, framing.
HEAD_BYTES = 100
#: What an object type takes in a record beside its name, at most: three numbers and their framing.
TYPE_OVERHEAD_BYTES = 40


class Hello(NamedTuple):
    """A child has begun; the first record that it sends."""

    pid: int
    slot: int
    start_ticks: int | None


class TotalsRecord(NamedTuple):
    """What the runs of one task type add up to: the bytes of a row of ``tally``. After each run of
    a type that has no row in the shared map."""

    pid: int
    key: TaskKey
    row: bytes


class FiguresRecord(NamedTuple):
    """The process's own figures, and what the agent itself costs in it."""

    pid: int
    figures: OwnFigures
    costs: Costs


class TypesRecord(NamedTuple):
    """Object types whose counts have changed; see ``census.changed``."""

    pid: int
    counts: dict[str, TypeCount]


class ContainersRecord(NamedTuple):
    """The containers of the process that grow most."""

    pid: int
    rows: list[GrowingContainer]


class ProfileRecord(NamedTuple):
    """What the runs of one task type left behind: the bytes of a row of ``growth``; and whether
    they replace old objects."""

    pid: int
    key: TaskKey
    row: bytes
    replaces: bool


class SurvivorsRecord(NamedTuple):
    """Objects that outlived audited runs, by type."""

    pid: int
    key: TaskKey
    counts: dict[str, float]


class SitesRecord(NamedTuple):
    """Lines where memory was left behind, as deep audits found them."""

    pid: int
    key: TaskKey
    deep_audits: float
    traced_audits: float
    watched_audits: float
    #: (figure, site) -> amount.
    sites: dict[tuple[str, str], float]
    paths: list[str]


class Holding(NamedTuple):
    """A container that grows with the runs of a task type."""

    kind: str
    items: float
    #: Items that deep-audited runs added.
    growth: float
    #: Most items that it can hold; ``UNBOUNDED`` when it is known to have no such limit.
    limit: int | None


class HoldersRecord(NamedTuple):
    """Containers that deep audits saw grow, by path."""

    pid: int
    key: TaskKey
    holders: dict[str, Holding]


class FillsRecord(NamedTuple):
    """How containers filled up, by path: per age past start-up, items gained and runs meanwhile."""

    pid: int
    key: TaskKey
    fills: dict[str, list[tuple[float, float]]]


class Bye(NamedTuple):
    """A child ends by itself; the last record that it sends."""

    pid: int
    exit_code: int
    peak_bytes: int


#: What a process tells of what one task type leaves behind.
EvidenceRecord: TypeAlias = (
    "ProfileRecord | SurvivorsRecord | SitesRecord | HoldersRecord | FillsRecord"
)
Record: TypeAlias = (
    "Hello | TotalsRecord | FiguresRecord | TypesRecord | ContainersRecord | EvidenceRecord | Bye"
)

#: A record's place in here is its kind's number in the pipe.
KINDS: tuple[Any, ...] = (
    *(Hello, TotalsRecord, FiguresRecord, TypesRecord, ContainersRecord, Bye),
    *(ProfileRecord, SurvivorsRecord, SitesRecord, HoldersRecord, FillsRecord),
)


def pack(record: Record) -> bytes:
    """The record as bytes; ``unpack`` makes it of them again."""
    kind = type(record)
    plain = _PLAIN.get(kind)
    return marshal.dumps((_NUMBERS[kind], *(record if plain is None else plain(*record))))


def unpack(packed: bytes) -> Record:
    """The record that ``pack`` was given."""
    number, *fields = marshal.loads(packed)
    record: Record = _MAKERS[number](*fields)
    return record


# Records with values in them that are no plain tuples: how those become such, and back.


def _plain_figures(pid: int, figures: OwnFigures, costs: Costs) -> tuple[Any, ...]:
    return pid, dataclasses.astuple(figures), dataclasses.astuple(costs)


def _figures(pid: int, figures: tuple[Any, ...], costs: tuple[Any, ...]) -> FiguresRecord:
    return FiguresRecord(pid, OwnFigures(*figures), Costs(*costs))


def _plain_containers(pid: int, rows: list[GrowingContainer]) -> tuple[Any, ...]:
    return pid, [dataclasses.astuple(row) for row in rows]


def _containers(pid: int, rows: list[tuple[Any, ...]]) -> ContainersRecord:
    return ContainersRecord(pid, [GrowingContainer(*row) for row in rows])


def _plain_holders(pid: int, key: TaskKey, holders: dict[str, Holding]) -> tuple[Any, ...]:
    return pid, key, {path: tuple(holding) for path, holding in holders.items()}


def _holders(pid: int, key: TaskKey, holders: dict[str, tuple[Any, ...]]) -> HoldersRecord:
    return HoldersRecord(pid, key, {path: Holding(*each) for path, each in holders.items()})


_PLAIN: dict[type, Callable[..., tuple[Any, ...]]] = {
    FiguresRecord: _plain_figures,
    ContainersRecord: _plain_containers,
    HoldersRecord: _plain_holders,
}
_MAKE = {FiguresRecord: _figures, ContainersRecord: _containers, HoldersRecord: _holders}
_NUMBERS: dict[type, int] = {kind: number for number, kind in enumerate(KINDS)}
_MAKERS: list[Callable[..., Record]] = [_MAKE.get(kind, kind) for kind in KINDS]


def portions(counts: dict[str, TypeCount]) -> Iterator[dict[str, TypeCount]]:
    """The counts of object types in portions that each fit one record."""
    portion: dict[str, TypeCount] = {}
    taken = 0
    for name, row in counts.items():
        size = len(name.encode("utf-8", "replace")) + TYPE_OVERHEAD_BYTES
        if taken + size > PIPE_BUF - HEAD_BYTES and portion:
            yield portion
            portion, taken = {}, 0
        portion[name] = row
        taken += size
    if portion:
        yield portion
