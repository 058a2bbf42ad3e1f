"""What has been told of each worker's life so far, so that answers are stable.

Each report is judged anew, by rules that have a border. Evidence that lies near one would be told
as a leak in one report and as not known in the next, and alerts would come and go with it. So a
task type that was accused stays accused, since when it was and with its class, until evidence
clears it: that evidence is missing for a while does not. Another life of a worker begins anew.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from celery_memory_exporter.common.evidence import Holder
from celery_memory_exporter.common.report import Instance
from celery_memory_exporter.diagnosis import advice
from celery_memory_exporter.diagnosis.classes import ORDER
from celery_memory_exporter.diagnosis.verdict import Cleared, Suspect
from celery_memory_exporter.fleet.snapshot import WorkerView

#: Reports in a row that find a class until it is told beside those that are, and that do not find
#: it until it is told no more: one minute and ten minutes, with a report each fifteen seconds.
REPORTS_TO_JOIN, REPORTS_TO_DROP = 5, 40
#: Of the container that grows most: one that was told first before goes on being told first while
#: it grows by this share of it.
LEAST_SHARE = 0.5
#: Accusations that are remembered; those that were asked for longest ago go first.
MOST = 10_000
#: Classes of processes that grow without a task type to explain it.
OF_PROCESSES = frozenset({"main", "python"})
#: One of these is what a task type leaves behind, never two.
MEMORY = frozenset({"python", "native", "resident"})

#: Of one life of a worker at a broker: a task type, or its processes by their class of growth.
Key: TypeAlias = "tuple[str, str, Instance, str | None, str]"
Verdict: TypeAlias = "Suspect | Cleared"


@dataclass(slots=True)
class Accusation:
    """What was told last, and by which reports."""

    suspect: Suspect
    #: The number of the report that was looked at last.
    sequence: int
    #: By class: the first report in a row that found it, and the last one.
    found: dict[str, tuple[int, int]] = field(default_factory=dict)

    def note(self, classes: Iterable[str], sequence: int) -> None:
        """A report found these classes."""
        for each in classes:
            first, last = self.found.get(each, (sequence, sequence))
            self.found[each] = (first if last >= self.sequence else sequence, sequence)
        self.sequence = sequence

    def classes(self) -> tuple[str, ...]:
        """Those to tell now, the one that tells most first."""
        last = {each: self.found[each][1] for each in self.suspect.growth_classes}
        stay = {each for each in last if self.sequence - last[each] < REPORTS_TO_DROP}
        join = {
            each
            for each, (first, last) in self.found.items()
            if last == self.sequence and last - first >= REPORTS_TO_JOIN
        }
        if join & MEMORY:
            stay -= MEMORY
        now = {each for each, (_, last) in self.found.items() if last == self.sequence}
        return tuple(each for each in ORDER if each in (stay | join or now))


class Told:
    """Of all workers that were judged. Any thread may ask."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """``clock``: Unix time."""
        self._clock = clock
        self._accusations: OrderedDict[Key, Accusation] = OrderedDict()
        self._lock = threading.Lock()

    def of_tasks(self, worker: WorkerView, found: Iterable[Verdict]) -> list[Verdict]:
        """What is to be told of a worker's task types, when its last report was judged so."""
        with self._lock:
            return [
                self._accused(worker, each.task, "", each)
                if isinstance(each, Suspect)
                else self._not_accused(worker, each)
                for each in found
            ]

    def of_processes(
        self, worker: WorkerView, found: Sequence[Suspect], *, explained: bool
    ) -> list[Suspect]:
        """The same of processes that grow without a task type to explain it; ``explained``: there
        is one now. Nothing else clears them but that they do not grow, for so many reports."""
        with self._lock:
            told = [self._accused(worker, None, each.growth_class, each) for each in found]
            missing = OF_PROCESSES - {each.growth_class for each in found}
            if explained:
                missing -= {"python"}
            return told + [each for name in missing for each in self._still(worker, name)]

    def _still(self, worker: WorkerView, growth_class: str) -> list[Suspect]:
        """The accusation of processes that the last report does not make, if it stands."""
        key = key_of(worker, None, growth_class)
        before = self._accusations.get(key)
        if before is None:
            return []
        before.sequence = sequence_of(worker)
        if before.sequence - before.found[growth_class][1] < REPORTS_TO_DROP:
            return [before.suspect]
        del self._accusations[key]
        return []

    def _accused(
        self, worker: WorkerView, task: str | None, growth_class: str, found: Suspect
    ) -> Suspect:
        key, sequence = key_of(worker, task, growth_class), sequence_of(worker)
        before = self._accusations.get(key)
        if before is None:
            first = dataclasses.replace(found, since=round(self._clock(), 3))
            before = self._accusations[key] = Accusation(first, sequence)
        before.note(found.growth_classes, sequence)
        classes = before.classes() if task is not None else found.growth_classes
        before.suspect = merged(before.suspect, found, classes)
        self._accusations.move_to_end(key)
        while len(self._accusations) > MOST:
            self._accusations.popitem(last=False)
        return before.suspect

    def _not_accused(self, worker: WorkerView, found: Cleared) -> Verdict:
        key = key_of(worker, found.task, "")
        before = self._accusations.get(key)
        if before is None:
            return found
        if found.settled or found.contradicted:
            del self._accusations[key]
            return found
        before.sequence = sequence_of(worker)
        self._accusations.move_to_end(key)
        before.suspect = dataclasses.replace(
            before.suspect, runs=found.runs, audited_runs=found.audited_runs
        )
        return before.suspect


def key_of(worker: WorkerView, task: str | None, growth_class: str) -> Key:
    assert worker.report is not None
    report = worker.report
    return worker.broker, report.worker, report.instance, task, growth_class


def sequence_of(worker: WorkerView) -> int:
    assert worker.report is not None
    return worker.report.sequence


def merged(before: Suspect, now: Suspect, classes: tuple[str, ...]) -> Suspect:
    """What is told now, with what was told before in its place. Figures are in the unit of the
    leading class: where the report leads with another one, they stay."""
    figures = now if now.growth_class == classes[0] else before
    holders = in_order(before.holders, now.holders)
    known = dataclasses.replace(
        figures,
        since=before.since,
        growth_class=classes[0],
        growth_classes=classes,
        runs=now.runs,
        audited_runs=now.audited_runs,
        object_types=now.object_types or before.object_types,
        sites=now.sites or before.sites,
        holders=holders,
        paths=now.paths or before.paths,
    )
    if known.task is None:
        return known
    return dataclasses.replace(known, advice=advice.for_suspect(known))


def in_order(before: tuple[Holder, ...], now: tuple[Holder, ...]) -> tuple[Holder, ...]:
    """Who holds it: the one that was told first stays the first, unless another one explains much
    more or it turned out to be bounded."""
    if not before or not now:
        return now or before
    first = next((each for each in now if each.path == before[0].path), None)
    if first is None or first.growth < LEAST_SHARE * now[0].growth:
        return now
    if first.limit is not None and now[0].limit is None:
        return now
    return (first, *(each for each in now if each is not first))
