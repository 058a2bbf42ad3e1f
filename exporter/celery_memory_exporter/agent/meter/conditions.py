"""What the owner of a meter, a pool child or the worker's main process, hands to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals

#: Called with the type whose run begins, and the resident memory before it.
OnOpen: TypeAlias = "Callable[[str, int | None], None]"
#: Called with the type whose run is over, and its totals: the meter's own row, which goes on
#: rising.
OnClose: TypeAlias = "Callable[[TaskKey, TaskTotals], None]"


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a process's runs are measured."""

    #: Task types told apart.
    max_tasks: int
    #: Whether runs have the process to themselves, so that they may be audited.
    audits: bool = True
    #: Whether the pool pickles what a failed run answers with, so that the meter may do it before.
    pickles_failures: bool = False
    #: Resident memory above which the pool recycles the process.
    peak_limit_bytes: int | None = None


class Containers(Protocol):
    """Sizes of containers, read at both ends of a run; see ``Shares``."""

    def sizes(self) -> dict[str, int]: ...

    def add_items(self, name: str, before: dict[str, int]) -> None: ...
