"""What a process tells of one task type, how it goes through the pipe, and how several processes'
words become one.

Everything in here adds up, so a child that is gone leaves its part behind. Words of gone processes
fade: what twenty generations ago was so need not be so today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from celery_memory_exporter.agent.audit.dossier import Dossier
from celery_memory_exporter.agent.audit.suspicion import steady_sums
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.profile import ProfileRow
from celery_memory_exporter.agent.stats.row import sum_of
from celery_memory_exporter.agent.stats.tally import TaskKey
from celery_memory_exporter.common.evidence import Estimate, Evidence, Fill, Holder, Site
from celery_memory_exporter.common.left_behind import PROCESS, LeftBehind

#: Weight of what a gone process told, each time that another one goes.
FADE = 0.98
#: Names in one record of the pipe, and bytes of each: they have to fit.
NAMES = 10
NAME_BYTES = 120
#: The limit of a container that has none, as far as a process can tell; one that has outgrown it
#: tells more than a younger one.
UNBOUNDED = 2**62
MAX_PATHS = 3
#: Containers of which it is told how they filled up: with 22 ages each, they fit a record of the
#: pipe.
FILLS = 4
#: A process counts as a witness from so many measured runs on.
WITNESS_RUNS = 5


@dataclass(slots=True)
class Words:
    """What is told of one task type: by one process, or by several together."""

    row: ProfileRow = field(default_factory=ProfileRow)
    survivors: dict[str, float] = field(default_factory=dict)
    deep_audits: float = 0.0
    #: Those with tracemalloc, and those with a watch over lines.
    traced_audits: float = 0.0
    watched_audits: float = 0.0
    #: (figure, site) -> amount.
    sites: dict[tuple[str, str], float] = field(default_factory=dict)
    #: path -> kind, items, growth, limit.
    holders: dict[str, tuple[str, float, float, int | None]] = field(default_factory=dict)
    #: path -> per age past start-up: items gained, and runs meanwhile.
    fills: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    paths: dict[str, float] = field(default_factory=dict)
    witnesses: float = 0.0
    growing: float = 0.0
    #: Whether these are several processes' words, whose witnesses have been counted.
    summed: bool = False


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


def top(amounts: dict[Any, float]) -> dict[Any, float]:
    return dict(sorted(amounts.items(), key=lambda item: -item[1])[:NAMES])


# --- from a process to its records --------------------------------------------------------------


def records(
    pid: int,
    key: TaskKey,
    grown: TaskProfile,
    dossier: Dossier | None,
    rows: dict[str, GrowingContainer],
) -> Iterator[tuple[Any, ...]]:
    """One process's words, in portions that each fit the pipe."""
    yield ("growth", pid, *key, grown.row.to_bytes())
    yield ("survivors", pid, *key, cut_all(top(dict(grown.survivors)), cut))
    if dossier is None or not dossier.audits:
        return
    sites = cut_all(top(dict(dossier.sites)), lambda site: (site[0], cut(site[1])))
    audits = (dossier.audits, dossier.traced, dossier.watched)
    yield (
        "sites",
        pid,
        *key,
        audits,
        sites,
        [cut(path) for path in list(dossier.paths)[:MAX_PATHS]],
    )
    held: dict[str, tuple[str, float, float, int | None]] = {}
    for path, growing in top({path: items for path, (_, items) in dossier.holders.items()}).items():
        row, name = rows.get(path), cut(path)
        _, items, grew, limit = held.get(name, ("", 0, 0.0, None))
        if row is not None:
            limit = UNBOUNDED if row.capacity is None else row.capacity
        held[name] = (
            dossier.holders[path][0],
            items + (row.items if row else 0),
            grew + growing,
            limit,
        )
    yield ("holders", pid, *key, held)
    most = [
        path
        for path in top({path: items for path, (_, items) in dossier.holders.items()})
        if path in rows
    ][:FILLS]
    yield (
        "fills",
        pid,
        *key,
        {cut(path): dossier.fill(path, rows[path].items, grown.row) for path in most},
    )


def apply(words: Words, kind: str, rest: list[Any]) -> None:
    """Books one of ``records``; each replaces what the process told before."""
    if kind == "growth":
        words.row = ProfileRow.from_bytes(rest[0])
    elif kind == "survivors":
        words.survivors = rest[0]
    elif kind == "sites":
        (words.deep_audits, words.traced_audits, words.watched_audits), words.sites, paths = rest
        words.paths = dict.fromkeys(paths, 1.0)
    elif kind == "holders":
        words.holders = rest[0]
    elif kind == "fills":
        words.fills = rest[0]


KINDS = ("growth", "survivors", "sites", "holders", "fills")

# --- several processes ---------------------------------------------------------------------------


def together(parts: Iterable[Words]) -> Words:
    """The sum. Each part that is not a sum itself is one witness."""
    parts = list(parts)
    total = Words(row=sum_of(part.row for part in parts), summed=True)
    for part in parts:
        witnesses, growing = (part.witnesses, part.growing) if part.summed else _testimony(part.row)
        total.witnesses += witnesses
        total.growing += growing
        total.deep_audits += part.deep_audits
        total.traced_audits += part.traced_audits
        total.watched_audits += part.watched_audits
        for name, count in part.survivors.items():
            total.survivors[name] = total.survivors.get(name, 0) + count
        for site, amount in part.sites.items():
            total.sites[site] = total.sites.get(site, 0) + amount
        for path, fill in part.fills.items():
            before = total.fills.get(path, [])
            total.fills[path] = [
                (a + c, b + d) for (a, b), (c, d) in zip_longest(before, fill, fillvalue=(0.0, 0.0))
            ]
        for path, weight in part.paths.items():
            total.paths[path] = total.paths.get(path, 0) + weight
        for path, (kind, items, grown, limit) in part.holders.items():
            _, more_items, more_grown, known = total.holders.get(path, (kind, 0, 0, None))
            most = max((each for each in (known, limit) if each is not None), default=None)
            total.holders[path] = (kind, items + more_items, grown + more_grown, most)
    return total


def faded(words: Words) -> Words:
    """What stays of a process that is gone: its containers are empty, and the rest counts a little
    less."""
    return Words(
        row=words.row.scaled(FADE),
        survivors={name: count * FADE for name, count in top(words.survivors).items()},
        deep_audits=words.deep_audits * FADE,
        traced_audits=words.traced_audits * FADE,
        watched_audits=words.watched_audits * FADE,
        sites={site: amount * FADE for site, amount in top(words.sites).items()},
        holders={
            path: (kind, 0, grown * FADE, limit)
            for path, (kind, _, grown, limit) in _most(words.holders).items()
        },
        fills={
            path: [(a * FADE, b * FADE) for a, b in words.fills[path]]
            for path in _most(words.holders)
            if path in words.fills
        },
        paths={path: weight * FADE for path, weight in top(words.paths).items()},
        witnesses=words.witnesses * FADE,
        growing=words.growing * FADE,
        summed=True,
    )


def _most(
    holders: dict[str, tuple[str, float, float, int | None]],
) -> dict[str, tuple[str, float, float, int | None]]:
    return dict(sorted(holders.items(), key=lambda item: -item[1][2])[:NAMES])


def _testimony(row: ProfileRow) -> tuple[float, float]:
    """Whether the process is a witness, and whether it speaks for something left behind."""
    sums = steady_sums(row)
    if sums.measured < WITNESS_RUNS:
        return 0.0, 0.0
    return 1.0, float(bool(LeftBehind(sums, PROCESS)))


def to_evidence(
    words: Words, seconds: float, overlapping: Estimate | None, tmpfs: Estimate | None
) -> Evidence:
    """For the report."""
    row = words.row
    return Evidence(
        profile=row.to_profile(),
        processes=round(words.witnesses, 2),
        growing=round(words.growing, 2),
        failed_audits=round(row.failed_audits, 1),
        failed_bytes=round(row.failed_bytes, 1),
        seconds=round(seconds, 1),
        survivors={name: round(count) for name, count in top(words.survivors).items()},
        sites=[
            Site(site, figure, round(amount, 1))
            for (figure, site), amount in top(words.sites).items()
        ],
        deep_audits=round(words.deep_audits),
        traced_audits=round(words.traced_audits),
        watched_audits=round(words.watched_audits),
        holders=[
            Holder(path, kind, round(items), round(grown, 1), None if limit == UNBOUNDED else limit)
            for path, (kind, items, grown, limit) in _most(words.holders).items()
        ],
        fills=[
            Fill(
                path, [round(gained, 1) for gained, _ in fill], [round(runs, 1) for _, runs in fill]
            )
            for path, fill in ((path, words.fills.get(path, [])) for path in _most(words.holders))
            if fill
        ],
        paths=list(top(words.paths)),
        overlapping=overlapping,
        tmpfs=tmpfs,
    )
