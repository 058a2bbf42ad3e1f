"""What a pool child has still to tell."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from celery_memory_exporter.agent.audit.dossier import Dossier
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.meter.books import Costs, Measurements
from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.tally import TaskTotals
from celery_memory_exporter.agent.worker.evidence import NAMES
from celery_memory_exporter.agent.worker.evidence_records import NAME_BYTES
from celery_memory_exporter.agent.worker.figures import OwnFigures
from celery_memory_exporter.agent.worker.outbox import Outbox
from celery_memory_exporter.agent.worker.records import (
    Bye,
    ContainersRecord,
    FiguresRecord,
    HoldersRecord,
    ProfileRecord,
    TotalsRecord,
    TypesRecord,
)
from tests.agent.worker.pipe import Pipe

KEY, OTHER = ("t", "q"), ("u", "q")


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


@pytest.fixture
def outbox(pipe: Pipe) -> Outbox:
    return Outbox(pipe.channel, 7)


def measured(**changes: Any) -> Measurements:
    values: dict[str, Any] = {"totals": {}, "growth": {KEY: TaskProfile(), OTHER: TaskProfile()}}
    values |= {"dossiers": {}, "containers": [], "costs": Costs(0.5, 1, 2)}
    return Measurements(**{**values, **changes})


def runs_told(pipe: Pipe) -> list[tuple[str, float]]:
    return [(record.key[0], array("d", record.row)[0]) for record in pipe.of(TotalsRecord)]


def test_totals_are_sent_once_as_they_are_then(pipe: Pipe, outbox: Outbox) -> None:
    row = TaskTotals()
    outbox.put(KEY, row)
    row.figures[0] = 3
    outbox.send_totals()
    outbox.send_totals()
    assert runs_told(pipe) == [("t", 3)]


def test_totals_that_found_the_pipe_full_are_sent_later(pipe: Pipe, outbox: Outbox) -> None:
    rows = {KEY: TaskTotals(), OTHER: TaskTotals()}
    pipe.full = True
    for key, row in rows.items():
        outbox.put(key, row)
    outbox.send_totals()
    assert not outbox.empty
    rows[KEY].figures[0] = 5
    pipe.full = False
    outbox.send_totals()
    assert sorted(runs_told(pipe)) == [("t", 5), ("u", 0)]


def test_a_run_that_ends_while_its_totals_are_sent_is_told_again(
    pipe: Pipe, outbox: Outbox
) -> None:
    row = TaskTotals()
    outbox.put(KEY, row)

    def another_run() -> None:
        pipe.during = lambda: None
        row.figures[0] += 1
        outbox.put(KEY, row)

    pipe.during = another_run
    outbox.send_totals()
    outbox.send_totals()
    assert runs_told(pipe)[-1] == ("t", 1)


def test_evidence_is_of_the_types_that_ran_since(pipe: Pipe, outbox: Outbox) -> None:
    outbox.put(KEY, TaskTotals())
    outbox.send_evidence(measured())
    outbox.send_evidence(measured())
    assert [record.key for record in pipe.of(ProfileRecord)] == [KEY]


def test_evidence_that_found_the_pipe_full_in_between_is_sent_whole_later(
    pipe: Pipe, outbox: Outbox
) -> None:
    dossier = Dossier(audits=1)
    dossier.add_holder("shop.CARTS", "list", 2.0)
    outbox.put(KEY, TaskTotals())

    def fill() -> None:
        pipe.full = len(pipe.sent) == 2

    pipe.during = fill
    outbox.send_evidence(measured(dossiers={KEY: dossier}))
    assert [len(pipe.of(kind)) for kind in (ProfileRecord, HoldersRecord)] == [1, 0]
    pipe.during = lambda: None
    pipe.full = False
    outbox.send_evidence(measured(dossiers={KEY: dossier}))
    assert [len(pipe.of(kind)) for kind in (ProfileRecord, HoldersRecord)] == [2, 1]


def test_containers_are_sent_whenever_they_have_grown_and_no_more_than_fit(
    pipe: Pipe, outbox: Outbox
) -> None:
    for items in (3, 3, 9):
        rows = [GrowingContainer("n" * 500, "dict", items, 2, None) for _ in range(2 * NAMES)]
        outbox.send_evidence(measured(containers=rows))
    assert [record.rows for record in pipe.of(ContainersRecord)] == [
        [GrowingContainer("n" * NAME_BYTES, "dict", items, 2, None)] * NAMES for items in (3, 9)
    ]
    outbox.send_evidence(measured(containers=[]))
    assert pipe.of(ContainersRecord)[-1].rows == []


def test_figures_tell_what_the_agent_costs(pipe: Pipe, outbox: Outbox) -> None:
    figures = OwnFigures(python_blocks=5)
    outbox.send_figures(figures, measured())
    assert pipe.sent == [FiguresRecord(7, figures, Costs(0.5, 1, 2))]


def test_of_object_types_only_changes_are_sent(pipe: Pipe, outbox: Outbox) -> None:
    outbox.send_types({"A": (1, 1, 1), "B": (2, 2, 2)})
    outbox.send_types({"A": (1, 1, 1), "B": (3, 3, 3)})
    outbox.send_types({"B": (3, 3, 3)})
    assert [record.counts for record in pipe.of(TypesRecord)] == [
        {"A": (1, 1, 1), "B": (2, 2, 2)},
        {"B": (3, 3, 3)},
        {"A": (0, 0, 0)},
    ]


def test_object_types_that_found_the_pipe_full_go_with_the_next_census(
    pipe: Pipe, outbox: Outbox
) -> None:
    pipe.full = True
    outbox.send_types({"A": (1, 1, 1)})
    pipe.full = False
    outbox.send_types({"A": (1, 1, 1)})
    assert [record.counts for record in pipe.of(TypesRecord)] == [{"A": (1, 1, 1)}]


def test_goodbye_is_said_when_all_else_has_been(pipe: Pipe, outbox: Outbox) -> None:
    outbox.put(KEY, TaskTotals())
    assert not outbox.send_bye(155, 9)
    outbox.send_totals()
    assert not outbox.send_bye(155, 9)
    outbox.send_evidence(measured())
    assert outbox.send_bye(155, 9)
    assert pipe.sent[-1] == Bye(7, 155, 9)
    pipe.full = True
    assert not outbox.send_bye(155, 9)
