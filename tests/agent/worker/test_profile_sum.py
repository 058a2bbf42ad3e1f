"""What the processes' profiles add up to, report after report, is what it would be from scratch."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.stats.profile import WIDTH, Column, Failed, ProfileRow, Retained
from celery_memory_exporter.agent.stats.row import sum_of
from celery_memory_exporter.agent.worker.evidence import TaskEvidence
from celery_memory_exporter.agent.worker.ledger import Ledger
from celery_memory_exporter.agent.worker.profile_sum import ProfileSum
from celery_memory_exporter.agent.worker.records import ProfileRecord, SurvivorsRecord
from celery_memory_exporter.common.evidence import AGES
from tests.agent.profiles import set_figures

KEYS = [("a", "q"), ("b", "q"), ("c", "q")]
#: Fewer task types than run: one is counted as another.
MAX_TASKS = 2
PIDS = [1, 2, 3]


class Worker:
    """Children that come, run tasks of some age, forget their audits and go; and the sums over
    them."""

    def __init__(self) -> None:
        self.ledger = Ledger(MAX_TASKS)
        self.sums: dict[tuple[str, str], ProfileSum] = {}
        self._rows: dict[tuple[int, tuple[str, str]], ProfileRow] = {}
        self._replacing: set[tuple[int, tuple[str, str]]] = set()

    def run(self, pid: int, key: tuple[str, str], age: int, figures: list[float]) -> None:
        row = self._rows.setdefault((pid, key), ProfileRow())
        start = age * WIDTH
        old = row.figures[start : start + WIDTH]
        added = [before + figure for before, figure in zip(old, figures, strict=True)]
        row.figures[start : start + WIDTH] = array("d", added)
        row.figures[start + Column.RUNS] += 1
        self._tell(pid, key)

    def fail(self, pid: int, key: tuple[str, str]) -> None:
        row = self._rows.setdefault((pid, key), ProfileRow())
        row.figures[Failed.AUDITS] += 1
        row.figures[Failed.BLOCKS] += 0.1
        self._tell(pid, key)

    def forget_audits(self, pid: int, key: tuple[str, str]) -> None:
        runs = self._rows.get((pid, key), ProfileRow()).ages(Column.RUNS)
        row = self._rows[pid, key] = ProfileRow()
        for age, number in enumerate(runs):
            set_figures(row, age, runs=number)
        self._replacing.add((pid, key))
        self._tell(pid, key)

    def end(self, pid: int) -> None:
        if pid in self.ledger.children:
            self.ledger.remove_child(pid, "tasks", None)
            self._rows = {each: row for each, row in self._rows.items() if each[0] != pid}

    def report(self, told: list[bool]) -> None:
        """Of a task type that is not ``told`` the sum stays behind."""
        known = self.ledger.evidence()
        for (key, parts), is_told in zip(known.items(), [*told, True], strict=False):
            if is_told:
                self.sums.setdefault(key, ProfileSum()).update(parts)
                assert_from_scratch(self.sums[key], parts)

    def _tell(self, pid: int, key: tuple[str, str]) -> None:
        self.ledger.add_child(pid, pid, None)
        replaces = (pid, key) in self._replacing
        self.ledger.apply(ProfileRecord(pid, key, self._rows[pid, key].to_bytes(), replaces))


def assert_from_scratch(known: ProfileSum, parts: list[TaskEvidence]) -> None:
    total = sum_of(part.row for part in parts)
    assert known.row.figures == total.figures, "to the last bit"
    assert known.profile == total.to_profile()
    alive = [part.row.retained() for part in parts if not part.summed]
    assert repr(known.retained) == repr(Retained.of_all(alive)), "not a number is equal to itself"


OF_A_TYPE = st.tuples(st.sampled_from(PIDS), st.sampled_from(KEYS))
FIGURES = st.lists(
    st.integers(-(10**9), 10**9).map(lambda number: number / 1_000),
    min_size=WIDTH - 1,
    max_size=WIDTH - 1,
)
STEPS = st.one_of(
    st.tuples(st.just("run"), OF_A_TYPE, st.integers(0, len(AGES) - 1), FIGURES),
    st.tuples(st.just("fail"), OF_A_TYPE),
    st.tuples(st.just("forget_audits"), OF_A_TYPE),
    st.tuples(st.just("end"), st.tuples(st.sampled_from(PIDS))),
    st.tuples(st.just("report"), st.just(()), st.lists(st.booleans(), min_size=3, max_size=3)),
)


@given(st.lists(STEPS, max_size=40))
def test_the_sum_is_what_it_is_from_scratch_whoever_comes_and_goes(
    steps: list[tuple[object, ...]],
) -> None:
    worker = Worker()
    for name, who, *what in steps:
        if name == "run":
            what[1] = [0.0, *what[1]]
        getattr(worker, str(name))(*who, *what)  # type: ignore[misc]
    worker.report([True, True, True])


def told_by(ages: dict[int, int]) -> TaskEvidence:
    """What a process knows that had so many runs of each age."""
    row = ProfileRow()
    for age, runs in ages.items():
        set_figures(row, age, runs=runs)
    known = TaskEvidence()
    known.apply(ProfileRecord(1, KEYS[0], row.to_bytes(), replaces=False))
    return known


def test_of_ages_that_stayed_nothing_is_added_up_anew() -> None:
    known, part = ProfileSum(), told_by({0: 1, 1: 4, 2: 3})
    known.update([part])
    part.row.figures[WIDTH + Column.RUNS] = 99  # nobody told
    row = ProfileRow.from_bytes(part.row.to_bytes())
    set_figures(row, 2, runs=5)
    part.apply(ProfileRecord(1, KEYS[0], row.to_bytes(), replaces=False))
    known.update([part])
    assert known.profile.runs == [1, 4, 5]


def test_what_was_told_stays_as_it_was_told() -> None:
    """It may be kept for the time after the worker while the next report is made."""
    known, part = ProfileSum(), told_by({0: 1, 1: 4})
    known.update([part])
    before = known.profile
    part.apply(ProfileRecord(1, KEYS[0], told_by({0: 1, 1: 5, 2: 1}).row.to_bytes(), False))
    known.update([part])
    assert (before.runs, known.profile.runs) == ([1, 4], [1, 5, 1])


def test_a_change_that_is_not_the_profiles_leaves_its_ages_as_they_are() -> None:
    part = told_by({0: 1, 1: 4})
    changes, change = part.changes, part.change
    part.apply(SurvivorsRecord(1, KEYS[0], {"shop.Cart": 3.0}))
    part.apply(ProfileRecord(1, KEYS[0], part.row.to_bytes(), replaces=False))
    assert part.changes == changes
    assert part.change > change
