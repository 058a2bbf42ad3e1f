"""What the profiles of one task type's processes add up to, report after report.

A process's runs are of one age at a time, and all younger ages stay as they are. So only the ages
are added up anew that have changed in some process since the last report; the sum is what it would
be from scratch, to the last bit. A process that is gone needs no more: what is left of it is in a
new part, all ages of which have changed.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from celery_memory_exporter.agent.stats.profile import (
    NOTHING,
    WIDTH,
    Failed,
    ProfileRow,
    Retained,
)
from celery_memory_exporter.agent.worker.evidence import TaskEvidence
from celery_memory_exporter.common.evidence import Profile

_FAILED = int(Failed.AUDITS)


@dataclass(slots=True)
class ProfileSum:
    """Of one task type."""

    row: ProfileRow = field(default_factory=ProfileRow)
    #: As it was told in the last report that told it.
    profile: Profile = NOTHING
    #: In processes that are alive.
    retained: Retained = Retained()
    #: The latest change that it has.
    _change: int = 0

    def update(self, parts: list[TaskEvidence]) -> None:
        """``parts`` are what each process knows, and those gone together."""
        unchanged = [bisect_right(part.changes, self._change) for part in parts]
        # No more than were told: a process may pass over an age.
        same = min(*unchanged, len(self.profile.runs))
        reached = max([part.alone.ages for part in parts])
        self._change = max([part.change for part in parts])
        rows = [part.row for part in parts]
        self.row.add_up(rows, same * WIDTH, reached * WIDTH)
        if any(row.figures[_FAILED] for row in (self.row, *rows)):
            self.row.add_up(rows, Failed.AUDITS, Failed.END)
        self.profile = self.row.to_profile(self.profile, same)
        alive = [part.alone.retained for part in parts if not part.summed]
        self.retained = Retained.of_all(alive)
