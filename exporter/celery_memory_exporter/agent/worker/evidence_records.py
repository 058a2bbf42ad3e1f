"""What one process knows of one task type, as it sends it through the pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from celery_memory_exporter.agent.audit.dossier import Dossier
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.tally import TaskKey
from celery_memory_exporter.agent.worker.evidence import UNBOUNDED, top
from celery_memory_exporter.agent.worker.records import (
    EvidenceRecord,
    FillsRecord,
    HoldersRecord,
    Holding,
    ProfileRecord,
    SitesRecord,
    SurvivorsRecord,
)

#: Bytes of a name: a record has to fit the pipe.
NAME_BYTES = 120
MAX_PATHS = 3
#: Containers whose filling up is sent: with 22 ages each, they fit a record of the pipe.
FILLS = 4


def cut(name: str) -> str:
    """At most ``NAME_BYTES`` when encoded."""
    return name.encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", "ignore")


def cut_all(amounts: dict[Any, float], shorten: Callable[[Any], Any]) -> dict[Any, float]:
    """Names that become the same add up."""
    shortened: dict[Any, float] = {}
    for name, amount in amounts.items():
        short = shorten(name)
        shortened[short] = shortened.get(short, 0) + amount
    return shortened


def evidence_records(
    pid: int,
    key: TaskKey,
    grown: TaskProfile,
    dossier: Dossier | None,
    rows: dict[str, GrowingContainer],
) -> Iterator[EvidenceRecord]:
    """What one process knows of one task type, in portions that each fit the pipe. ``rows`` are the
    process's growing containers by path."""
    yield ProfileRecord(pid, key, grown.row.to_bytes(), grown.replaces)
    yield SurvivorsRecord(pid, key, cut_all(top(dict(grown.survivors)), cut))
    if dossier is None or not dossier.audits:
        return
    yield SitesRecord(
        pid,
        key,
        dossier.audits,
        dossier.traced,
        dossier.watched,
        sites=cut_all(top(dict(dossier.sites)), lambda site: (site[0], cut(site[1]))),
        paths=[cut(path) for path in list(dossier.paths)[:MAX_PATHS]],
    )
    fastest = list(top({path: items for path, (_, items) in dossier.holders.items()}))
    yield HoldersRecord(pid, key, _holders(dossier, rows, fastest))
    followed = [path for path in fastest if path in rows][:FILLS]
    yield FillsRecord(
        pid,
        key,
        {cut(path): dossier.fill(path, rows[path].items, grown.row) for path in followed},
    )


def _holders(
    dossier: Dossier, rows: dict[str, GrowingContainer], paths: list[str]
) -> dict[str, Holding]:
    """By path; containers whose paths are the same when cut are one."""
    held: dict[str, Holding] = {}
    for path in paths:
        row, name = rows.get(path), cut(path)
        kind, growing = dossier.holders[path]
        before = held.get(name, Holding(kind, 0, 0.0, None))
        limit, items = before.limit, 0
        if row is not None:
            limit, items = UNBOUNDED if row.capacity is None else row.capacity, row.items
        held[name] = Holding(kind, before.items + items, before.growth + growing, limit)
    return held
