"""What several processes know of a task type together, and what stays of those that are gone."""

from __future__ import annotations

import itertools
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.audit.suspicion import FIRST_AGE
from celery_memory_exporter.agent.stats.profile import WIDTH, Column, ProfileRow
from celery_memory_exporter.agent.worker.evidence import (
    ENOUGH_RUNS,
    FADE,
    MEASURED_RUNS,
    NAMES,
    UNBOUNDED,
    TaskEvidence,
    faded,
    settle,
    together,
)
from celery_memory_exporter.agent.worker.evidence_reports import to_evidence
from celery_memory_exporter.agent.worker.records import Holding, ProfileRecord
from tests.agent.profiles import set_figures

FIGURES = st.integers(0, 10**6)


ROW_OF = st.lists(st.integers(0, 1_000), min_size=WIDTH, max_size=WIDTH)


NAME = st.sampled_from("abc")


@st.composite
def processes(draw: st.DrawFn) -> TaskEvidence:
    """What a process knows that counts as one that measured."""
    row = ProfileRow()
    start = FIRST_AGE * WIDTH
    row.figures[start : start + WIDTH] = array("d", draw(ROW_OF))
    row.figures[start + Column.AUDITED] += MEASURED_RUNS
    return TaskEvidence(
        row=row,
        survivors=draw(st.dictionaries(NAME, FIGURES)),
        deep_audits=draw(FIGURES),
        sites=draw(st.dictionaries(st.tuples(st.just("bytes"), NAME), FIGURES)),
        holders={
            path: Holding("dict", items, items / 2, None)
            for path, items in draw(st.dictionaries(NAME, FIGURES)).items()
        },
        paths=draw(st.dictionaries(NAME, st.just(1.0))),
    )


def flat(known: TaskEvidence) -> dict[object, float]:
    holders = {("items", path): each[1] for path, each in known.holders.items()}
    holders |= {("growth", path): each[2] for path, each in known.holders.items()}
    figures = {
        "deep": known.deep_audits,
        "measured": known.processes_measured,
        "growing": known.processes_growing,
    }
    row = {("row", at): value for at, value in enumerate(known.row.figures)}
    return {
        **known.survivors,
        **known.sites,
        **{("path", path): value for path, value in known.paths.items()},
        **holders,
        **figures,
        **row,
    }


@given(st.lists(processes(), min_size=1, max_size=4), st.randoms())
def test_the_order_of_processes_does_not_matter(parts: list[TaskEvidence], random: object) -> None:
    shuffled = parts[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert flat(together(parts)) == pytest.approx(flat(together(shuffled)))


@given(st.lists(processes(), min_size=2, max_size=5), st.data())
def test_nor_does_who_was_summed_first(parts: list[TaskEvidence], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(parts) - 1))
    assert flat(together(parts)) == pytest.approx(
        flat(together([together(parts[:at]), *parts[at:]]))
    )


@given(st.lists(processes(), min_size=1, max_size=4))
def test_to_sum_changes_no_part(parts: list[TaskEvidence]) -> None:
    before = [flat(part) for part in parts]
    together(parts)
    assert [flat(part) for part in parts] == before


def after(runs: int, blocks: float = 0.0) -> TaskEvidence:
    """What a process knows after so many audited runs past start-up."""
    row = ProfileRow()
    start = FIRST_AGE * WIDTH
    row.figures[start + Column.AUDITED], row.figures[start + Column.BLOCKS] = runs, runs * blocks
    return TaskEvidence(row=row)


def test_a_process_that_measured_counts_and_grows_when_its_runs_left_something() -> None:
    total = together([after(100, blocks=20.0), after(100), after(100, blocks=0.1)])
    assert (total.processes_measured, total.processes_growing) == (3, 1)


def test_a_young_process_has_not_measured_enough() -> None:
    assert together([after(MEASURED_RUNS - 1, blocks=20.0)]).processes_measured == 0


def test_young_processes_have_not_measured_enough_together_either() -> None:
    young = [after(MEASURED_RUNS - 1, blocks=20.0) for _ in range(5)]
    assert together([together(young), young[0]]).processes_measured == 0


def test_a_process_whose_descriptors_rise_grows() -> None:
    known = after(10)
    known.row.figures[FIRST_AGE * WIDTH + Column.FDS] = 10
    assert together([known]).processes_growing == 1


def test_a_limit_that_one_process_knows_is_not_forgotten() -> None:
    knows, forgot = (
        TaskEvidence(holders={"c": Holding("deque", 5, 1.0, 100)}),
        TaskEvidence(holders={"c": Holding("deque", 0, 1.0, None)}),
    )
    for parts in itertools.permutations((knows, forgot)):
        assert together(parts).holders["c"][3] == 100


def test_how_containers_filled_up_adds_up_age_by_age_and_goes_with_its_container() -> None:
    one = TaskEvidence(
        holders={"shop.HELD": Holding("list", 9, 3.0, None)},
        fills={"shop.HELD": [(5.0, 10.0)], "shop.GONE": [(1.0, 1.0)]},
    )
    other = TaskEvidence(
        holders={"shop.HELD": Holding("list", 9, 3.0, None)},
        fills={"shop.HELD": [(1.0, 10.0), (2.0, 4.0)]},
    )
    assert together([one, other]).fills["shop.HELD"] == [(6.0, 20.0), (2.0, 4.0)]
    assert faded(together([one])).fills == {"shop.HELD": [(5.0, 10.0)]}


def test_a_container_that_has_outgrown_its_limit_in_one_process_has_none() -> None:
    young, old, unknown = (
        TaskEvidence(holders={"shop.HELD": Holding("list", items, 1.0, limit)})
        for items, limit in ((300, 500), (900, UNBOUNDED), (0, None))
    )
    for parts in ([young, old], [old, young], [young, faded(together([old]))], [old, unknown]):
        assert told_limit(parts) is None
    assert told_limit([young, unknown]) == 500


def told_limit(parts: list[TaskEvidence]) -> int | None:
    """Of the only container, in the report."""
    known = together(parts)
    (holder,) = to_evidence(known, known.row.to_profile(), 1.0, None, None).holders
    return holder.limit


@given(processes())
def test_to_fade_changes_nothing_of_what_is_known(known: TaskEvidence) -> None:
    before = flat(known)
    faded(known)
    assert flat(known) == before


@given(processes())
def test_what_is_gone_fades_and_keeps_its_ratios(known: TaskEvidence) -> None:
    summed = together([known])
    gone = faded(summed)
    weight = FADE if summed.row.measured >= ENOUGH_RUNS else 1.0
    expected = {
        name: 0.0 if type(name) is tuple and name[0] == "items" else weight * value
        for name, value in flat(summed).items()
    }
    assert flat(gone) == pytest.approx(expected)


def test_what_fades_is_bounded() -> None:
    known = TaskEvidence(
        survivors={f"{number}": float(number) for number in range(100)},
        sites={("bytes", f"{number}"): float(number) for number in range(100)},
        holders={
            f"{number}": Holding("dict", number, float(number), None) for number in range(100)
        },
        paths={f"{number}": 1.0 for number in range(100)},
    )
    gone = faded(known)
    assert [len(part) for part in (gone.survivors, gone.sites, gone.holders, gone.paths)] == [
        NAMES
    ] * 4
    assert "99" in gone.survivors


def test_children_that_tell_little_take_nothing_away_from_what_is_known() -> None:
    gone = together([after(500, blocks=20.0)])
    for _ in range(300):
        gone = faded(together([gone, after(1, blocks=20.0)]))
    assert gone.row.measured == 800
    for _ in range(1_000):
        gone = faded(together([gone, after(1, blocks=20.0)]))
    assert ENOUGH_RUNS * FADE <= gone.row.measured <= ENOUGH_RUNS


def test_generations_without_end_weigh_no_more_than_twenty() -> None:
    gone: list[TaskEvidence] = []
    for _ in range(500):
        gone = [faded(together([*gone, after(100, blocks=20.0)]))]
    (total,) = gone
    assert total.processes_measured == pytest.approx(FADE / (1 - FADE), rel=0.01)
    assert total.processes_growing == total.processes_measured
    start = FIRST_AGE * WIDTH
    assert total.row.figures[start + Column.BLOCKS] / total.row.figures[
        start + Column.AUDITED
    ] == pytest.approx(20.0)


# --- which audits count ---------------------------------------------------------------------------


def of_process(pid: int, *, blocks: float, replaces: bool = False) -> TaskEvidence:
    """What a process knows after a hundred audits that each told of so many blocks left behind."""
    known = TaskEvidence()
    row = after(100, blocks=blocks).row.to_bytes()
    known.apply(ProfileRecord(pid, ("t", "q"), row, replaces))
    return known


def audited(parts: list[TaskEvidence]) -> list[float]:
    settle(parts)
    return [sum(part.row.ages(Column.AUDITED)) for part in parts]


def test_where_one_process_finds_old_objects_replaced_each_has_to_find_out_for_itself() -> None:
    parts = [of_process(1, blocks=20.0), of_process(2, blocks=0.0)]
    assert audited(parts) == [100, 100]
    leaks_as_well = of_process(3, blocks=20.0, replaces=True)
    assert audited([*parts, leaks_as_well]) == [0, 100, 100]
    assert audited([*parts, leaks_as_well]) == [0, 100, 100]
    found_out = ProfileRecord(1, ("t", "q"), after(7, blocks=20.0).row.to_bytes(), replaces=True)
    parts[0].apply(found_out)
    assert audited([*parts, leaks_as_well]) == [7, 100, 100]


def test_what_gone_processes_told_counts_until_old_objects_were_replaced() -> None:
    gone = faded(together([of_process(1, blocks=20.0), of_process(2, blocks=20.0)]))
    assert audited([gone, of_process(3, blocks=20.0)]) == [200, 100]
    assert audited([gone, of_process(3, blocks=0.0, replaces=True)]) == [0, 100]
    gone = faded(together([gone, of_process(3, blocks=20.0, replaces=True)]))
    assert audited([gone, of_process(4, blocks=20.0)]) == [100, 0]


def test_runs_whose_audits_do_not_count_are_counted() -> None:
    row = set_figures(after(100, blocks=20.0).row, FIRST_AGE, runs=700)
    known = TaskEvidence()
    known.apply(ProfileRecord(1, ("t", "q"), row.to_bytes(), replaces=False))
    known.doubt()
    assert (known.row[FIRST_AGE, Column.RUNS], known.alone.processes_measured) == (700, 0)
