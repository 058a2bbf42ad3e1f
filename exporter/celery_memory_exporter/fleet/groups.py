"""Workers that come and go, shown as one: what is left of those that went, so that the group's
counters never go back.

The members' samples are added up when they are shown (``metrics``); here is what must be added
beside those that are still known: what members had counted that were forgotten or restarted. And
what must be taken off: an exporter that starts beside members of long standing would begin with all
that they ever counted. That is less than it showed before its restart, when it knew members that
are gone by now, and ``rate()`` takes what a fallen counter begins with for an increase. So a group
begins at zero.

Only used by the fleet, which has the lock and says what time it is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import Instance, WorkerReport
from celery_memory_exporter.fleet.capping import Admitted, cap_exceptions
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.snapshot import WorkerView
from celery_memory_exporter.fleet.totals import AgentTotals, Totals

#: Broker and the group's name.
Key = tuple[str, str]

#: A member whose first report that we see is none of its first ones was there before us, or before
#: we lost sight of it.
NEW_REPORTS = 2
#: Which run of a worker the members that are gone are.
NONE_NOW = Instance(boot_id="", pid_namespace=None, pid=0, start_ticks=None, started_at=0.0)


@dataclass(slots=True)
class Group:
    """One group at one broker."""

    name: str
    broker: str
    limits: Limits
    #: Shared by its members, so that the limits hold for the group.
    admitted: Admitted = field(default_factory=Admitted)
    #: Beside what its present members count; may be below zero.
    kept: Totals = field(default_factory=Totals)

    @property
    def key(self) -> Key:
        return self.broker, self.name

    def keep(self, totals: Totals) -> None:
        """A member has counted that, and is gone."""
        self.kept = self._capped(self.kept + totals)

    def join(self, first: Totals, before: Totals | None, sequence: int) -> None:
        """A member reports for the first time, by its report number ``sequence``. What was counted
        ``before`` goes on in the group, and what it has been counting all the while does not begin
        in it."""
        if before is not None:
            self.keep(before)
        if sequence > NEW_REPORTS or (before is not None and before.agent is None):
            self.kept = self._capped(self.kept - first)

    def view(self, leaving: Iterable[Totals]) -> WorkerView | None:
        """A worker that counts for those that are gone and for those ``leaving``; ``None`` where
        nothing was counted."""
        totals = self._capped(reduce(add, leaving, self.kept))
        if totals.agent is None and totals.traffic is None:
            return None
        report = _report_of(self.name, totals.agent) if totals.agent is not None else None
        return WorkerView(
            nodename=self.name,
            broker=self.broker,
            up=False,
            live=False,
            gone=True,
            grouped=True,
            report=report,
            traffic=totals.traffic,
            processes=(),
            cgroup=report.cgroup if report is not None else CgroupMemory(),
            children_started=totals.children_started or None,
        )

    def _capped(self, totals: Totals) -> Totals:
        """Task types are few by ``admitted``; exceptions are not."""
        if totals.traffic is None:
            return totals
        rows = tuple(cap_exceptions(row, self.limits) for row in totals.traffic.rows)
        return dataclasses.replace(totals, traffic=dataclasses.replace(totals.traffic, rows=rows))


class Groups:
    """Which group a worker belongs to: that of the first rule whose pattern its whole nodename
    matches."""

    def __init__(self, rules: Sequence[tuple[re.Pattern[str], str]], limits: Limits) -> None:
        self._rules = rules
        self._limits = limits
        self._groups: dict[Key, Group] = {}

    def of(self, broker: str, nodename: str) -> Group | None:
        """The worker's group, which is made on first sight of a member."""
        for pattern, name in self._rules:
            match = pattern.fullmatch(nodename)
            if match is not None:
                key = broker, match.expand(name)
                return self._groups.setdefault(key, Group(key[1], broker, self._limits))
        return None

    def views(
        self, alive: Container[Key], leaving: Mapping[Key, Iterable[Totals]]
    ) -> list[WorkerView]:
        """Of the groups ``alive``. ``leaving``: what members have counted that are still held here,
        and gone."""
        views = (
            group.view(leaving.get(key, ())) for key, group in self._groups.items() if key in alive
        )
        return [view for view in views if view is not None]

    def forget(self, alive: Container[Key]) -> None:
        """Groups without members, whose names may be made of the members' own."""
        self._groups = {key: group for key, group in self._groups.items() if key in alive}


def _report_of(name: str, agent: AgentTotals) -> WorkerReport:
    """The counters as the report of a worker that has no state."""
    counters = {each.name: getattr(agent, each.name) for each in dataclasses.fields(agent)}
    return WorkerReport(
        worker=name,
        instance=NONE_NOW,
        sequence=0,
        interval_seconds=0.0,
        pool="",
        concurrency=0,
        python_version="",
        celery_version="",
        agent_version="",
        processes=[],
        objects=[],
        children_started=0,
        child_memory_limit_bytes=None,
        **counters,
    )
