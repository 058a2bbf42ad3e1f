"""What speaks for or against one task type: what one process knows, and several together.

Everything in here adds up, so a child that is gone leaves its part behind. Evidence of gone
processes fades: what was so twenty generations ago need not be so today.

What audits tell of may be old objects that were replaced and wait for a full collection, which only
a confirming audit tells. Each process has little time for those, so what one of them found holds
for all of the worker (``settle``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import count, zip_longest
from typing import Any, NamedTuple

from celery_memory_exporter.agent.audit.suspicion import steady_sums, suspicion_of
from celery_memory_exporter.agent.stats.profile import Column, ProfileRow, Retained, same_ages
from celery_memory_exporter.agent.stats.row import sum_of
from celery_memory_exporter.agent.worker.records import (
    EvidenceRecord,
    FillsRecord,
    HoldersRecord,
    Holding,
    ProfileRecord,
    SitesRecord,
    SurvivorsRecord,
)
from celery_memory_exporter.common.evidence import AGES
from celery_memory_exporter.common.left_behind import PROCESS, LeftBehind

#: Weight that is left of a gone process's evidence, each time that another one goes, once there are
#: so many measured runs behind it. Where children live so short that they tell little, what is
#: known must not be gone before it is known anew.
FADE, ENOUGH_RUNS = 0.98, 1_000.0
#: Names in one record of the pipe.
NAMES = 10
#: The limit of a container that has none, as far as a process can tell; one that has outgrown it
#: tells more than a younger one.
UNBOUNDED = 2**62
#: A process counts as one that measured from so many measured runs on.
MEASURED_RUNS = 5
_changes = count(1)


class Alone(NamedTuple):
    """What the row of one process tells by itself."""

    #: 1 when it measured enough runs, and 1 when something was left behind in it as well.
    processes_measured: float
    processes_growing: float
    retained: Retained
    #: How many ages it has reached.
    ages: int

    @staticmethod
    def of(row: ProfileRow) -> Alone:
        sums, told = steady_sums(row), (row.retained(), row.reached)
        if sums.measured < MEASURED_RUNS:
            return Alone(0.0, 0.0, *told)
        return Alone(1.0, float(bool(LeftBehind(sums, PROCESS))), *told)


@dataclass(slots=True)
class TaskEvidence:
    """What one process knows of one task type, or several together; all of it adds up."""

    row: ProfileRow = field(default_factory=ProfileRow)
    #: Objects that outlived audited runs, by type.
    survivors: dict[str, float] = field(default_factory=dict)
    deep_audits: float = 0.0
    #: Those with tracemalloc, and those with a watch over lines.
    traced_audits: float = 0.0
    watched_audits: float = 0.0
    #: (figure, site) -> amount.
    sites: dict[tuple[str, str], float] = field(default_factory=dict)
    holders: dict[str, Holding] = field(default_factory=dict)
    #: path -> per age past start-up: items gained, and runs meanwhile.
    fills: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    paths: dict[str, float] = field(default_factory=dict)
    #: Processes that measured enough runs, and those of them in which something was left behind.
    processes_measured: float = 0.0
    processes_growing: float = 0.0
    #: Whether a confirming audit has found that runs replace old objects. All audits since were
    #: confirming ones.
    replaces: bool = False
    #: Whether this is a sum, whose processes have been counted.
    summed: bool = False
    #: Rises whenever something in here changes.
    change: int = field(default_factory=_changes.__next__)
    #: By age, the last change of its figures or of a younger age's.
    changes: tuple[int, ...] = ()
    _alone: Alone | None = None
    #: The row of one process as it was told.
    _told: ProfileRow = field(default_factory=ProfileRow)
    _doubted: bool = False

    def __post_init__(self) -> None:
        self.changes = (self.change,) * len(AGES)
        self._told = self.row

    @property
    def alone(self) -> Alone:
        """Of one process; looked at once for each row."""
        if self._alone is None:
            self._alone = Alone.of(self.row)
        return self._alone

    def apply(self, record: EvidenceRecord) -> None:
        """Takes one of ``evidence_records``; it replaces the process's earlier one of its kind."""
        match record:
            case ProfileRecord():
                self._take(replaces=record.replaces)
                self._take_row(record.row)
            case SurvivorsRecord():
                self._take(survivors=record.counts)
            case SitesRecord():
                self._take(
                    deep_audits=record.deep_audits,
                    traced_audits=record.traced_audits,
                    watched_audits=record.watched_audits,
                    sites=record.sites,
                    paths=dict.fromkeys(record.paths, 1.0),
                )
            case HoldersRecord():
                self._take(holders=record.holders)
            case FillsRecord():
                self._take(fills=record.fills)

    def doubt(self) -> None:
        """Audits no longer count that tell of something left behind, unless they are confirming
        ones. Of a sum that is not known."""
        if self._doubted:
            return
        self._doubted = True
        if not self.summed:
            self._show_row()
            return
        self.survivors.clear()
        self._set_row(self.row.without_audits())

    def _take_row(self, row: bytes) -> None:
        if row == self._told.to_bytes():
            return
        self._told = ProfileRow.from_bytes(row)
        self._show_row()

    def _show_row(self) -> None:
        told = self._told
        unsure = self._doubted and not self.replaces and any(told.ages(Column.AUDITED))
        doubtful = unsure and suspicion_of(told).bytes > 0
        self._set_row(told.without_audits() if doubtful else told)

    def _set_row(self, row: ProfileRow) -> None:
        before, self.row = self.row.to_bytes(), row
        # As it comes: a report that looked at hundreds at once would stop the worker.
        self._alone = Alone.of(row)
        self.change = next(_changes)
        same = same_ages(row.to_bytes(), before)
        self.changes = self.changes[:same] + (self.change,) * (len(AGES) - same)

    def _take(self, **values: Any) -> None:
        for name, value in values.items():
            if getattr(self, name) != value:
                setattr(self, name, value)
                self.change = next(_changes)

    def add(self, part: TaskEvidence) -> None:
        """All of it but the row."""
        self.replaces = self.replaces or part.replaces
        self.deep_audits += part.deep_audits
        self.traced_audits += part.traced_audits
        self.watched_audits += part.watched_audits
        if part.survivors:
            _add(self.survivors, part.survivors)
        if part.sites or part.paths:
            _add(self.sites, part.sites)
            _add(self.paths, part.paths)
        if part.holders or part.fills:
            _add_holders(self.holders, part.holders)
            _add_fills(self.fills, part.fills)
        counted: Alone | TaskEvidence = part if part.summed else part.alone
        self.processes_measured += counted.processes_measured
        self.processes_growing += counted.processes_growing

    def fastest(self) -> dict[str, Holding]:
        """The containers that grew most."""
        return dict(sorted(self.holders.items(), key=lambda item: -item[1].growth)[:NAMES])


def top(amounts: dict[Any, float]) -> dict[Any, float]:
    """The largest amounts."""
    return dict(sorted(amounts.items(), key=lambda item: -item[1])[:NAMES])


# --- several processes ---------------------------------------------------------------------------

#: Fields that fade as they are, and those that fade by name.
FIGURES = [each.name for each in fields(TaskEvidence) if each.type == "float"]
AMOUNTS = [each.name for each in fields(TaskEvidence) if str(each.type).endswith(", float]")]


def together(parts: Sequence[TaskEvidence], row: ProfileRow | None = None) -> TaskEvidence:
    """The sum. Each part that is not a sum itself is one process. ``row`` is the sum of their rows,
    where it is known."""
    total = TaskEvidence(row or sum_of(part.row for part in parts), summed=True)
    for part in parts:
        total.add(part)
    return total


def settle(parts: Sequence[TaskEvidence]) -> None:
    """Which audits of these processes of a worker count: where one of them has found that runs
    replace old objects, each has to find out for itself what stays of what it sees."""
    if any(part.replaces for part in parts):
        for part in parts:
            part.doubt()


def _add(total: dict[Any, float], amounts: dict[Any, float]) -> None:
    for name, amount in amounts.items():
        total[name] = total.get(name, 0) + amount


def _add_fills(
    total: dict[str, list[tuple[float, float]]], fills: dict[str, list[tuple[float, float]]]
) -> None:
    for path, fill in fills.items():
        before = total.get(path, [])
        total[path] = [
            (a + c, b + d) for (a, b), (c, d) in zip_longest(before, fill, fillvalue=(0.0, 0.0))
        ]


def _add_holders(total: dict[str, Holding], holders: dict[str, Holding]) -> None:
    for path, (kind, items, grown, limit) in holders.items():
        _, more_items, more_grown, known = total.get(path, Holding(kind, 0, 0, None))
        most = max((each for each in (known, limit) if each is not None), default=None)
        total[path] = Holding(kind, items + more_items, grown + more_grown, most)


def faded(evidence: TaskEvidence) -> TaskEvidence:
    """What stays of processes that are gone: their containers are empty, and the rest counts a
    little less, where there is enough of it."""
    fastest = evidence.fastest()
    weight = FADE if evidence.row.measured >= ENOUGH_RUNS else 1.0
    gone = TaskEvidence(
        row=evidence.row.scaled(weight),
        holders={
            path: holding._replace(items=0, growth=holding.growth * weight)
            for path, holding in fastest.items()
        },
        fills={
            path: [(a * weight, b * weight) for a, b in evidence.fills[path]]
            for path in fastest
            if path in evidence.fills
        },
        replaces=evidence.replaces,
        summed=True,
        _doubted=evidence.replaces,
    )
    for name in FIGURES:
        setattr(gone, name, getattr(evidence, name) * weight)
    for name in AMOUNTS:
        amounts = top(getattr(evidence, name))
        setattr(gone, name, {each: amount * weight for each, amount in amounts.items()})
    return gone
