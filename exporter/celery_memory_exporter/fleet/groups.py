"""Groups: workers that come and go, and are shown as one.

The counters of a group must never go back. So the group keeps what its members had counted that
were forgotten, or were restarted under their name; whoever shows the group adds that to what its
present members count.

It also takes off what members had counted before it knew them. An exporter that starts beside
members of long standing would otherwise begin with all that they ever counted. That is less than it
showed before its own restart, when it still knew members that are gone by now, and ``rate()`` takes
what a fallen counter begins with for an increase. So a group begins at zero, and what it keeps may
be below zero.

Only the fleet uses it, which has the lock and says what time it is.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

from celery_memory_exporter.common.report import WorkerReport
from celery_memory_exporter.fleet.capping import Admitted, cap_exceptions
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.totals import Totals

#: Broker and the group's name.
Key = tuple[str, str]

#: A member whose first report that we see has no higher number than this has only just started.
NEW_REPORTS = 2


@dataclass(slots=True)
class Group:
    """One group at one broker."""

    name: str
    broker: str
    limits: Limits
    #: Shared by its members, so that the limits hold for the group.
    admitted: Admitted = field(default_factory=Admitted)
    #: What is added to what its present members count.
    kept: Totals = field(default_factory=Totals)

    @property
    def key(self) -> Key:
        return self.broker, self.name

    def keep(self, totals: Totals) -> None:
        """A member that is gone has counted ``totals``."""
        self.kept = self._capped(self.kept + totals)

    def join(self, first: Totals, before: Totals | None, *, new: bool) -> None:
        """A member reports for the first time. What was counted ``before`` goes on in the group,
        and what it has been counting all the while does not begin in it, unless it is ``new``."""
        if before is not None:
            self.keep(before)
        if not new or (before is not None and before.agent is None):
            self.kept = self._capped(self.kept - first)

    def with_those(self, leaving: Iterable[Totals]) -> Totals:
        """What is kept once those are gone that have counted ``leaving``."""
        return self._capped(reduce(add, leaving, self.kept))

    def _capped(self, totals: Totals) -> Totals:
        """``admitted`` bounds how many task types there are; here it is their exceptions."""
        if totals.traffic is None:
            return totals
        rows = tuple(cap_exceptions(row, self.limits) for row in totals.traffic.rows)
        return dataclasses.replace(totals, traffic=dataclasses.replace(totals.traffic, rows=rows))


class Groups:
    """Which group a worker belongs to: that of the first rule whose pattern its whole nodename
    matches."""

    def __init__(
        self, rules: Sequence[tuple[re.Pattern[str], str]], limits: Limits, began: float
    ) -> None:
        """``began``: since when there has been somebody to hear reports."""
        self._rules = rules
        self._limits = limits
        self._groups: dict[Key, Group] = {}
        self._watched_since = began

    def of(self, broker: str, nodename: str) -> Group | None:
        """The worker's group, which is made on first sight of a member."""
        for pattern, name in self._rules:
            match = pattern.fullmatch(nodename)
            if match is not None:
                key = broker, match.expand(name)
                return self._groups.setdefault(key, Group(key[1], broker, self._limits))
        return None

    def is_new(self, report: WorkerReport, started: float | None) -> bool:
        """Whether no group can have seen the worker before, by its first report that we see: it
        has only just started, or it ``started`` since we know all workers. Reports of its first
        minutes may not have come here: its broker was away, or ours."""
        if report.sequence <= NEW_REPORTS:
            return True
        return started is not None and started > self._watched_since

    def lose(self, group: Group, totals: Totals, now: float) -> None:
        """A member that has counted ``totals`` is no longer heard. It may come back."""
        group.keep(totals)
        self._watched_since = now

    def kept(
        self, alive: Container[Key], leaving: Mapping[Key, Iterable[Totals]]
    ) -> dict[Key, Totals]:
        """What is kept in the groups ``alive``, and what members have counted that are ``leaving``:
        gone, and still held here."""
        return {
            key: group.with_those(leaving.get(key, ()))
            for key, group in self._groups.items()
            if key in alive
        }

    def forget(self, alive: Container[Key]) -> None:
        """Forgets groups without members: their names may be made of the members' own, without
        end."""
        self._groups = {key: group for key, group in self._groups.items() if key in alive}
