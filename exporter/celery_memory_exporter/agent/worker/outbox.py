"""What a pool child has still to tell its main process through the pipe.

Totals that the main process cannot read in the shared map are sent after each run, so a child that
is killed loses only the run it dies in; everything that is not about one run goes now and then. All
of it is cumulative, so what finds the pipe full waits here and is sent later as it is then.

A run may end while another thread sends: a type is taken off what is pending before its figures are
read, so that such a run puts it back.
"""

from __future__ import annotations

from dataclasses import replace

from celery_memory_exporter.agent.heap import census
from celery_memory_exporter.agent.heap.census import TypeCount
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.meter.books import Measurements
from celery_memory_exporter.agent.stats.tally import TaskKey, TaskTotals
from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.evidence import NAMES
from celery_memory_exporter.agent.worker.evidence_records import cut, evidence_records
from celery_memory_exporter.agent.worker.figures import OwnFigures
from celery_memory_exporter.agent.worker.records import (
    Bye,
    ContainersRecord,
    FiguresRecord,
    TotalsRecord,
    TypesRecord,
    portions,
)


class Outbox:
    """Of one process. One thread at a time sends; any thread may ``put``."""

    def __init__(self, channel: Channel, pid: int) -> None:
        self._channel = channel
        self._pid = pid
        #: By task type: its totals, which go on rising.
        self._totals: dict[TaskKey, TaskTotals] = {}
        #: Task types of which there is more to tell than their totals.
        self._evidence: set[TaskKey] = set()
        self._types: dict[str, TypeCount] = {}
        #: As they were sent.
        self._containers: list[GrowingContainer] = []

    @property
    def empty(self) -> bool:
        """Whether everything about runs has been sent."""
        return not self._totals and not self._evidence

    def put(self, key: TaskKey, totals: TaskTotals | None) -> bool:
        """The type has been run. ``totals`` are to be sent; ``None``: they are read elsewhere.
        The answer is whether totals wait to be sent."""
        if totals is not None:
            self._totals[key] = totals
        self._evidence.add(key)
        return bool(self._totals)

    def send_totals(self) -> None:
        for key in list(self._totals):
            totals = self._totals.pop(key)
            if not self._channel.send(TotalsRecord(self._pid, key, totals.to_bytes())):
                self._totals[key] = totals
                return

    def send_figures(self, figures: OwnFigures, measured: Measurements) -> None:
        """What is not about one run: lost when the pipe is full, since newer ones follow."""
        self._channel.send(FiguresRecord(self._pid, figures, measured.costs))

    def send_evidence(self, measured: Measurements) -> None:
        """What runs left behind, of the types that ran since."""
        rows = {row.path: row for row in measured.containers}
        fastest = [replace(row, path=cut(row.path)) for row in measured.containers[:NAMES]]
        if fastest != self._containers and self._channel.send(ContainersRecord(self._pid, fastest)):
            self._containers = fastest
        for key in list(self._evidence):
            self._evidence.discard(key)
            records = evidence_records(
                self._pid, key, measured.growth[key], measured.dossiers.get(key), rows
            )
            if not all(self._channel.send(record) for record in records):
                self._evidence.add(key)
                return

    def send_types(self, counts: dict[str, TypeCount]) -> None:
        """What has changed since the last census that was sent."""
        for portion in portions(census.changed(counts, self._types)):
            if not self._channel.send(TypesRecord(self._pid, portion)):
                return  # what was not sent differs from what was, and goes with the next census
            self._types = census.known(self._types, portion)

    def send_bye(self, exit_code: int, peak_bytes: int) -> bool:
        """Whether it has been sent, and everything about runs before it."""
        return self.empty and self._channel.send(Bye(self._pid, exit_code, peak_bytes))
