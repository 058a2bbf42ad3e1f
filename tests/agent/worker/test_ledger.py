"""What the main process knows of its children, and what outlives them."""

from __future__ import annotations

import itertools
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.meter.books import Costs
from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.agent.stats.profile import WIDTH, Column, ProfileRow, Retained
from celery_memory_exporter.agent.stats.tally import TaskTotals
from celery_memory_exporter.agent.worker.evidence import together
from celery_memory_exporter.agent.worker.figures import OwnFigures
from celery_memory_exporter.agent.worker.ledger import HISTORY_SIZE, History, Ledger, ProcessTotals
from celery_memory_exporter.agent.worker.profile_sum import ProfileSum
from celery_memory_exporter.agent.worker.records import (
    Bye,
    ContainersRecord,
    FiguresRecord,
    Hello,
    HoldersRecord,
    Holding,
    ProfileRecord,
    SitesRecord,
    SurvivorsRecord,
    TotalsRecord,
    TypesRecord,
)
from celery_memory_exporter.agent.worker.shared_map import Shape, SharedMap

KEY = ("t", "q")


def succeeded(pid: int, runs: float, name: str = "t", queue: str = "q") -> TotalsRecord:
    row = TaskTotals()
    row.figures[0] = runs
    return TotalsRecord(pid, (name, queue), row.to_bytes())


def grown(pid: int, *, runs: int, audits: int, blocks: float) -> ProfileRecord:
    """Of a process past its first run, each audit with so many blocks."""
    row = ProfileRow()
    start = WIDTH
    row.figures[start + Column.RUNS], row.figures[start + Column.AUDITED] = runs, audits
    row.figures[start + Column.BLOCKS] = audits * blocks
    return ProfileRecord(pid, KEY, row.to_bytes(), replaces=False)


def runs_by_task(ledger: Ledger) -> dict[tuple[str, str], float]:
    return {key: row.figures[0] for key, row in ledger.tasks().items()}


def retained(ledger: Ledger) -> Retained:
    known = ProfileSum()
    known.update(ledger.evidence()[KEY])
    return known.retained


def test_totals_survive_the_child_and_its_live_memory_does_not() -> None:
    ledger = Ledger(200)
    for record in (
        Hello(7, 0, 70),
        succeeded(7, 5),
        grown(7, runs=5, audits=5, blocks=20),
        FiguresRecord(7, OwnFigures(python_blocks=1), Costs(0.5, 1, 2)),
    ):
        ledger.apply(record)
    ledger.remove_child(7, "tasks", None)
    for record in (Hello(8, 0, 80), succeeded(8, 3), grown(8, runs=4, audits=2, blocks=10)):
        ledger.apply(record)
    assert runs_by_task(ledger) == {KEY: 8}
    assert retained(ledger) == (40, 0, 4), "the living child's mean for all its runs"
    assert (ledger.started, dict(ledger.exited), ledger.lost) == (2, {"tasks": 1}, {})
    assert ledger.costs() == Costs(0.5, 1, 2)


def test_what_is_in_no_row_of_the_map_is_what_is_to_be_kept() -> None:
    ledger = Ledger(200)
    shared = SharedMap.anonymous(Shape.of(2, 5))
    for pid in (7, 8):
        row = shared.new_row(pid - 7, pid, KEY)
        assert row is not None
        row.add_run(0, 1.0)
    ledger.show_rows(shared.rows())
    ledger.apply(succeeded(8, 3, "apart"))
    assert {key: row.runs for key, row in ledger.kept().items()} == {("apart", "q"): 3}
    ledger.remove_child(7, "tasks", None)
    assert {key: row.runs for key, row in ledger.kept().items()} == {KEY: 1, ("apart", "q"): 3}
    for row in shared.rows():
        shared.free(row.number)
    assert runs_by_task(ledger)[KEY] == 1, "of the one that is gone; its row is nobody's"


def test_what_a_gone_child_told_stays_as_evidence() -> None:
    ledger = Ledger(200)
    for pid in (7, 8):
        ledger.add_child(pid, 0, None)
        for record in (
            grown(pid, runs=5, audits=5, blocks=20),
            SurvivorsRecord(pid, KEY, {"shop.Cart": 100}),
            SitesRecord(pid, KEY, 4, 3, 1, {("bytes", "shop.py:1"): 64.0}, ["shop.CARTS[...]"]),
            HoldersRecord(pid, KEY, {"shop.CARTS": Holding("list", 50, 20.0, None)}),
        ):
            ledger.apply(record)
    ledger.remove_child(7, "tasks", None)
    known = together(ledger.evidence()[KEY])
    both = 2  # it fades only where there is more
    assert known.survivors == {"shop.Cart": pytest.approx(100 * both)}
    assert known.sites == {("bytes", "shop.py:1"): pytest.approx(64.0 * both)}
    assert known.holders == {"shop.CARTS": ("list", 50, pytest.approx(20.0 * both), None)}, (
        "a gone child's containers are empty"
    )
    assert known.paths == {"shop.CARTS[...]": both}
    audits = known.deep_audits, known.traced_audits, known.watched_audits
    assert audits == pytest.approx((4 * both, 3 * both, both))
    told = array("d", grown(7, runs=5, audits=5, blocks=20).row)
    assert list(known.row.figures) == pytest.approx([value * both for value in told])


def test_the_containers_of_living_processes_are_summed_and_the_fastest_growing_come_first() -> None:
    ledger = Ledger(200)
    rows = [
        GrowingContainer("shop.a", "dict", 5, 1, None),
        GrowingContainer("shop.b", "list", 10, 3, 100),
    ]
    for pid in (1, 2, 3):
        ledger.add_child(pid, pid, None)
        ledger.apply(ContainersRecord(pid, rows))
    ledger.remove_child(3, "tasks", None)
    assert ledger.containers() == [
        GrowingContainer("shop.b", "list", 20, 6, 100),
        GrowingContainer("shop.a", "dict", 10, 2, None),
    ]


def test_what_is_told_again_replaces_what_was_told_before() -> None:
    ledger = Ledger(200)
    ledger.add_child(7, 0, 70)
    for runs in (1, 2, 2, 3):
        ledger.apply(succeeded(7, runs))
    assert runs_by_task(ledger) == {KEY: 3}


def test_a_child_whose_hello_was_lost_is_added_once_by_the_pool() -> None:
    ledger = Ledger(200)
    ledger.apply(succeeded(7, 1))
    assert ledger.tasks() == {}
    ledger.add_child(7, 0, 70)
    ledger.apply(Hello(7, 0, 70))
    ledger.apply(succeeded(7, 2))
    assert (ledger.started, runs_by_task(ledger)) == (1, {KEY: 2})


def test_the_task_that_a_killed_child_was_in_is_lost() -> None:
    ledger = Ledger(max_tasks=1)
    for pid, task in enumerate(("a", "a", "b")):
        ledger.add_child(pid, 0, None)
        ledger.remove_child(pid, "oom", task)
    assert ledger.lost == {("a", "oom"): 2, ("other", "oom"): 1}


def test_the_cap_on_task_types_holds_for_the_worker() -> None:
    ledger = Ledger(max_tasks=2)
    for pid in range(4):
        ledger.add_child(pid, pid, None)
        ledger.apply(succeeded(pid, 1, f"t{pid}", ""))
    expected = {("t0", ""): 1, ("t1", ""): 1, tally.OTHER: 2}
    assert runs_by_task(ledger) == expected
    for pid in range(4):
        ledger.remove_child(pid, "tasks", None)
    assert runs_by_task(ledger) == expected


def test_a_type_once_told_apart_stays_so_when_children_end() -> None:
    ledger = Ledger(max_tasks=3)
    for pid, names in ((1, "abc"), (2, "de")):
        ledger.add_child(pid, pid, None)
        for name in names:
            ledger.apply(succeeded(pid, 5, name, ""))
    before = runs_by_task(ledger)
    ledger.remove_child(2, "tasks", None)
    assert runs_by_task(ledger) == before


def test_types_are_summed_over_processes_the_main_one_included() -> None:
    ledger = Ledger(200)
    for pid in (1, 2):
        ledger.add_child(pid, pid, None)
        ledger.apply(TypesRecord(pid, {"A": (10, 5, 1), "B": (1, 0, 0)}))
    ledger.apply(TypesRecord(2, {"A": (20, 15, 2)}))
    ledger.main.types = {"A": (1, 1, 1)}
    assert ledger.types() == {"A": (31, 21, 4), "B": (2, 0, 0)}


def test_a_type_that_is_gone_in_a_process_is_no_longer_held() -> None:
    process = ProcessTotals(0, None)
    process.apply(TypesRecord(7, {"A": (10, 5, 1), "B": (1, 0, 0)}))
    process.apply(TypesRecord(7, {"A": (0, 0, 0)}))
    assert process.types == {"B": (1, 0, 0)}


def test_a_child_that_ends_by_itself_has_told_how() -> None:
    ledger = Ledger(200)
    ledger.apply(Hello(7, 3, 70))
    ledger.apply(Bye(7, 155, 9_000))
    child = ledger.children[7]
    assert (child.slot, child.start_ticks) == (3, 70)
    assert (child.exit_code, child.peak_bytes) == (155, 9_000)


def test_the_main_process_is_one_of_the_processes_and_no_child() -> None:
    ledger = Ledger(200, start_ticks=11)
    ledger.main.apply(succeeded(1, 4))
    ledger.main.apply(grown(1, runs=5, audits=5, blocks=20))
    ledger.main.costs = Costs(1.0, 1, 1)
    assert runs_by_task(ledger) == {KEY: 4}
    assert retained(ledger) == (100, 0, 5)
    assert ledger.costs() == Costs(1.0, 1, 1)
    assert (ledger.started, ledger.children, ledger.main.start_ticks) == (0, {}, 11)


# --- a process's past ---------------------------------------------------------------------------

PAUSES = st.lists(st.floats(0.1, 1_000.0), max_size=300)


def filled(times: list[float]) -> History:
    history = History()
    for number, time in enumerate(times):
        history.add([time, float(number)])
    return history


@given(PAUSES)
def test_few_points_tell_of_the_whole_life(pauses: list[float]) -> None:
    times = list(itertools.accumulate(pauses))
    points = filled(times).points
    assert len(points) <= HISTORY_SIZE
    assert [point[0] for point in points] == sorted({point[0] for point in points})
    assert points[:1] == [[time, 0.0] for time in times[:1]], "the first one stays"
    assert points[-1:] == [[time, len(times) - 1.0] for time in times[-1:]], "the last one is now"
    assert all(times[int(number)] == time for time, number in points), "each is as it was told"


@given(st.integers(3 * HISTORY_SIZE, 5_000))
def test_points_are_spread_evenly(count: int) -> None:
    points = filled([15.0 * number for number in range(count)]).points
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(points)]
    assert len(points) >= HISTORY_SIZE // 2
    assert max(gaps) <= 4 * 15.0 * count / len(points)


def test_a_short_past_is_told_in_full() -> None:
    assert filled([float(number) for number in range(HISTORY_SIZE)]).points == [
        [float(n), float(n)] for n in range(HISTORY_SIZE)
    ]
