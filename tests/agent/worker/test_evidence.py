"""What a process tells of a task type: through the pipe, and in the report."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.audit.dossier import MAX_NAMES, Dossier
from celery_memory_exporter.agent.audit.suspicion import FIRST_AGE
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.stats.growth import MAX_TYPES, TaskProfile
from celery_memory_exporter.agent.stats.profile import WIDTH, Column, Failed, ProfileRow
from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.evidence import (
    NAMES,
    UNBOUNDED,
    TaskEvidence,
    together,
)
from celery_memory_exporter.agent.worker.evidence_records import NAME_BYTES, evidence_records
from celery_memory_exporter.agent.worker.evidence_reports import to_evidence
from celery_memory_exporter.agent.worker.records import (
    FillsRecord,
    HoldersRecord,
    Holding,
    ProfileRecord,
    SitesRecord,
    SurvivorsRecord,
)
from celery_memory_exporter.agent.worker.shared_map import Shape, SharedMap
from celery_memory_exporter.common.names import short_name
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

PID = 2**22


WIDEST = ("x", "é", "語", "\U0001f40d", "\ud800", "<>")


def full_dossier(letter: str) -> Dossier:
    dossier = Dossier(audits=10**6)
    for number in range(MAX_NAMES):
        dossier.add_site("descriptors", letter * 900 + f"{number}", 1e300 / (number + 1))
        dossier.add_holder(f"{number}" + letter * 900, "SimpleQueue", 1e300 / (number + 1))
        dossier.paths[f"{number}" + letter * 900] = 1
    return dossier


def told(
    grown: TaskProfile, dossier: Dossier | None, rows: dict[str, GrowingContainer] | None = None
) -> TaskEvidence:
    known = TaskEvidence()
    for record in evidence_records(PID, ("t", "q"), grown, dossier, rows or {}):
        known.apply(record)
    return known


@pytest.mark.parametrize("letter", WIDEST)
def test_every_record_fits_the_pipe_with_the_longest_names(letter: str) -> None:
    grown = TaskProfile()
    grown.row = ProfileRow.from_bytes(array("d", [math.pi] * ProfileRow.SIZE).tobytes())
    grown.add_survivors({f"{number}" + letter * 500: 2**60 for number in range(MAX_TYPES)})
    dossier = full_dossier(letter)
    rows = {
        path: GrowingContainer(path, "SimpleQueue", 2**60, 2**60, 2**60) for path in dossier.holders
    }
    key = short_name(letter * 500), short_name(letter * 500)
    channel = Channel(SharedMap.anonymous(Shape(1, 1, 4)))
    made = list(evidence_records(PID, key, grown, dossier, rows))
    assert [type(record) for record in made] == [
        *(ProfileRecord, SurvivorsRecord, SitesRecord, HoldersRecord, FillsRecord)
    ]
    assert [channel.send(record) for record in made] == [True] * 5
    assert list(channel.receive()) == made
    channel.close()


def test_a_process_that_was_not_looked_at_deeply_tells_no_more_than_its_runs() -> None:
    for dossier in (None, Dossier()):
        made = evidence_records(PID, ("t", "q"), TaskProfile(), dossier, {})
        assert [type(record) for record in made] == [ProfileRecord, SurvivorsRecord]


def test_what_is_told_is_what_was_found() -> None:
    grown = TaskProfile()
    grown.add_audit(grown.begin(), 5, 50)
    grown.add_survivors({"shop.Cart": 7})
    dossier = Dossier(audits=3)
    dossier.add_site("bytes", "shop.py:1", 64.0)
    dossier.add_holder("shop.CARTS", "list", 2.0)
    dossier.add_holder("shop.GONE", "dict", 1.0)
    dossier.paths["shop.CARTS[...]"] = 2
    known = told(
        grown, dossier, {"shop.CARTS": GrowingContainer("shop.CARTS", "list", 100, 90, 1_000)}
    )
    assert known.row.figures == grown.row.figures
    assert known.survivors == {"shop.Cart": 7}
    assert (known.deep_audits, known.sites, known.paths) == (
        3,
        {("bytes", "shop.py:1"): 64.0},
        {"shop.CARTS[...]": 1},
    )
    assert known.holders == {
        "shop.CARTS": Holding("list", 100, 2.0, 1_000),
        "shop.GONE": Holding("dict", 0, 1.0, None),
    }


@given(st.dictionaries(st.text(max_size=200), st.integers(1, 2**40), max_size=MAX_TYPES))
def test_the_most_frequent_survivors_are_told(survivors: dict[str, int]) -> None:
    grown = TaskProfile()
    grown.add_survivors(survivors)
    got = told(grown, None).survivors
    assert len(got) <= NAMES
    assert all(len(name.encode("utf-8", "surrogatepass")) <= NAME_BYTES for name in got)
    assert (
        sorted(got.values(), reverse=True) == sorted(survivors.values(), reverse=True)[: len(got)]
        or len(got) < NAMES
    )


def test_names_that_are_equal_when_cut_add_up() -> None:
    grown = TaskProfile()
    grown.add_survivors({"m" * NAME_BYTES + "a": 70, "m" * NAME_BYTES + "b": 30})
    assert told(grown, None).survivors == {"m" * NAME_BYTES: 100}


def test_what_is_told_again_replaces_what_was_told_before() -> None:
    grown = TaskProfile()
    known = TaskEvidence()
    for _ in range(3):
        grown.add_survivors({"shop.Cart": 1})
        for record in evidence_records(PID, ("t", "q"), grown, None, {}):
            known.apply(record)
    assert known.survivors == {"shop.Cart": 3}


def test_containers_whose_paths_are_equal_when_cut_are_one() -> None:
    dossier = Dossier(audits=1)
    for letter, items in (("a", 7.0), ("b", 3.0)):
        dossier.add_holder("m" * NAME_BYTES + letter, "list", items)
    path = "m" * NAME_BYTES
    rows = {path + "b": GrowingContainer(path + "b", "list", 50, 5, 500)}
    assert told(TaskProfile(), dossier, rows).holders == {path: Holding("list", 50, 10.0, 500)}


def test_a_container_without_a_limit_says_so() -> None:
    dossier = Dossier(audits=1)
    dossier.add_holder("shop.CARTS", "list", 2.0)
    rows = {"shop.CARTS": GrowingContainer("shop.CARTS", "list", 100, 90, None)}
    known = told(TaskProfile(), dossier, rows)
    assert known.holders["shop.CARTS"].limit == UNBOUNDED
    (holder,) = to_evidence(known, known.row.to_profile(), 1.0, None, None).holders
    assert holder.limit is None


def after(runs: int, blocks: float = 0.0) -> TaskEvidence:
    """What a process knows after so many audited runs past start-up."""
    row = ProfileRow()
    start = FIRST_AGE * WIDTH
    row.figures[start + Column.AUDITED], row.figures[start + Column.BLOCKS] = runs, runs * blocks
    return TaskEvidence(row=row)


def test_evidence_for_the_report() -> None:
    known = together([after(100, blocks=20.0)])
    known.row.figures[FIRST_AGE * WIDTH + Column.RUNS] = 100
    (
        known.row.figures[Failed.AUDITS],
        known.row.figures[Failed.BLOCKS],
        known.row.figures[Failed.NATIVE],
    ) = (
        2,
        3,
        4,
    )
    known.survivors = {"shop.Cart": 2.6}
    known.sites = {("bytes", "shop.py:1"): 64.04, ("threads", "shop.py:2"): 99.0}
    known.holders = {
        "shop.CARTS": Holding("list", 10, 2.0, None),
        "shop.b": Holding("dict", 1, 5.0, 7),
    }
    told = to_evidence(known, known.row.to_profile(), 1.23, None, None)
    assert told.profile.blocks[FIRST_AGE] == 2_000
    assert (told.processes, told.growing, told.seconds) == (1, 1, 1.2)
    assert (told.failed_audits, told.failed_bytes) == (2, 3 * MEAN_BLOCK_BYTES + 4)
    assert told.survivors == {"shop.Cart": 3}
    assert [(site.site, site.figure, site.amount) for site in told.sites] == [
        ("shop.py:2", "threads", 99.0),
        ("shop.py:1", "bytes", 64.0),
    ]
    assert [(holder.path, holder.items, holder.limit) for holder in told.holders] == [
        ("shop.b", 1, 7),
        ("shop.CARTS", 10, None),
    ]


def test_the_report_tells_the_most_of_everything_and_whole_numbers_of_most() -> None:
    known = TaskEvidence(
        survivors={f"{number}": float(number) for number in range(100)},
        holders={f"{number}": Holding("dict", 1.4, float(number), None) for number in range(100)},
        fills={f"{number}": [(1.04, 2.06)] for number in range(100)},
        paths={f"{number}": float(number) for number in range(100)},
    )
    told = to_evidence(known, known.row.to_profile(), 1.0, None, None)
    best = [f"{number}" for number in range(99, 99 - NAMES, -1)]
    assert list(told.survivors) == told.paths == best
    assert [holder.path for holder in told.holders] == [fill.path for fill in told.fills] == best
    assert (told.holders[0].items, told.fills[0].gains, told.fills[0].runs) == (1, [1.0], [2.1])
