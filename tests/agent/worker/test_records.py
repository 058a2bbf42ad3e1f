"""What goes through the pipe, and what comes out of it."""

from __future__ import annotations

import marshal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.meter.books import Costs
from celery_memory_exporter.agent.stats.profile import ProfileRow
from celery_memory_exporter.agent.stats.tally import TaskTotals
from celery_memory_exporter.agent.worker.figures import OwnFigures
from celery_memory_exporter.agent.worker.records import (
    KINDS,
    PIPE_BUF,
    Bye,
    ContainersRecord,
    FiguresRecord,
    FillsRecord,
    Hello,
    HoldersRecord,
    Holding,
    ProfileRecord,
    Record,
    SitesRecord,
    SurvivorsRecord,
    TotalsRecord,
    TypesRecord,
    pack,
    portions,
    unpack,
)

KEY = ("shop.leak", "celery")
RECORDS: list[Record] = [
    Hello(7, 0, 70),
    Hello(7, -1, None),
    TotalsRecord(7, KEY, TaskTotals().to_bytes()),
    FiguresRecord(7, OwnFigures(python_blocks=1, gc_collections=[3, 2, 1]), Costs(0.5, 1, 2)),
    TypesRecord(7, {"shop.Cart": (3, 2, 1)}),
    ContainersRecord(7, [GrowingContainer("shop.CARTS", "dict", 3, 2, None)]),
    ProfileRecord(7, KEY, ProfileRow().to_bytes(), replaces=False),
    SurvivorsRecord(7, KEY, {"shop.Cart": 20}),
    SitesRecord(7, KEY, 3, 2, 1, {("bytes", "shop.py:1"): 64.0}, ["shop.CARTS[...]"]),
    HoldersRecord(7, KEY, {"shop.CARTS": Holding("dict", 3, 2.0, None)}),
    FillsRecord(7, KEY, {"shop.CARTS": [(1.0, 2.0), (0.0, 3.0)]}),
    Bye(7, 155, 10**9),
]


def test_each_kind_is_tried_here() -> None:
    assert {type(record) for record in RECORDS} == set(KINDS)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_what_is_unpacked_is_what_was_packed(record: Record) -> None:
    unpacked = unpack(pack(record))
    assert unpacked == record
    assert type(unpacked) is type(record)
    assert list(map(type, unpacked)) == list(map(type, record))


def test_values_in_a_record_are_the_values_that_they_were() -> None:
    holders = unpack(pack(HoldersRecord(7, KEY, {"a": Holding("dict", 3, 2.0, None)})))
    assert isinstance(holders, HoldersRecord)
    assert holders.holders["a"].growth == 2.0
    containers = unpack(pack(ContainersRecord(7, [GrowingContainer("a", "dict", 3, 2, 9)])))
    assert isinstance(containers, ContainersRecord)
    assert containers.rows[0].capacity == 9


def test_a_record_is_its_kinds_number_and_its_fields() -> None:
    """Nothing that would make it longer than it has to be."""
    assert marshal.loads(pack(Bye(7, 155, 9))) == (KINDS.index(Bye), 7, 155, 9)


COUNT = st.integers(-(2**62), 2**62)


@given(st.dictionaries(st.text(max_size=200), st.tuples(COUNT, COUNT, COUNT), max_size=60))
def test_types_go_in_portions_that_fit_a_record(counts: dict[str, Any]) -> None:
    parts = list(portions(counts))
    assert {name: row for part in parts for name, row in part.items()} == counts
    assert all(len(pack(TypesRecord(2**31, part))) < PIPE_BUF for part in parts)
    assert all(parts)


def test_a_portion_is_full_before_the_next_one_begins() -> None:
    counts = {f"{number}" + "\U0001f40d" * 50: (1, 1, 1) for number in range(100)}
    sizes = [len(pack(TypesRecord(2**31, part))) for part in portions(counts)]
    assert all(PIPE_BUF * 3 / 4 < size < PIPE_BUF for size in sizes[:-1])
    assert len(sizes) > 1


def test_no_types_are_no_portion() -> None:
    assert list(portions({})) == []
