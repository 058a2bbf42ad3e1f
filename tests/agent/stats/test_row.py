"""Rows add up, travel as bytes, and nothing that they are made of is shared."""

from __future__ import annotations

import gc
import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.stats.row import Row, sum_of
from celery_memory_exporter.agent.stats.tally import TaskTotals


class Three(Row):
    __slots__ = ()
    SIZE = 3


#: Sums of whole numbers of this size are exact.
FIGURES = st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3)
ROWS = st.lists(FIGURES, min_size=1, max_size=5)


def three(figures: list[int]) -> Three:
    return Three.from_bytes(array("d", figures).tobytes())


def test_a_new_row_is_zeros() -> None:
    assert list(Three().figures) == [0, 0, 0]


@given(ROWS)
def test_sums_are_column_by_column_in_any_order(rows: list[list[int]]) -> None:
    expected = [sum(column) for column in zip(*rows, strict=True)]
    assert list(sum_of(map(three, rows)).figures) == expected
    assert list(sum_of(map(three, reversed(rows))).figures) == expected


@given(ROWS)
def test_a_sum_changes_no_part_and_shares_no_figure(rows: list[list[int]]) -> None:
    parts = [three(row) for row in rows]
    sum_of(parts).figures[0] += 1
    assert [list(part.figures) for part in parts] == rows


def test_there_is_no_sum_of_no_rows() -> None:
    with pytest.raises(ValueError, match="unpack"):
        sum_of([])


@given(FIGURES)
def test_a_row_goes_through_bytes_unchanged(figures: list[int]) -> None:
    row = three(figures)
    assert type(Three.from_bytes(row.to_bytes())) is Three
    assert Three.from_bytes(row.to_bytes()).figures == row.figures


def test_a_row_over_shared_memory_is_like_any_other() -> None:
    memory = memoryview(bytearray(24)).cast("d")
    row = Three.over(memory)
    row.figures[1] += 2
    assert (row.shared, list(memory)) == (True, [0, 2, 0])
    assert Three.from_bytes(row.to_bytes()).figures.tolist() == [0, 2, 0]
    total = sum_of([row, three([1, 1, 1])])
    assert (total.shared, list(total.figures)) == (False, [1, 3, 1])


def test_a_row_that_parted_goes_on_alone() -> None:
    memory = memoryview(bytearray(24)).cast("d")
    row = Three.over(memory)
    row.figures[0] = 1
    row.part()
    row.figures[0] += 1
    assert (row.shared, list(row.figures), list(memory)) == (False, [2, 0, 0], [1, 0, 0])


@given(FIGURES)
def test_a_row_of_figures_has_as_many_as_there_are_columns(figures: list[int]) -> None:
    assert list(Three.of(figures).figures) == figures
    with pytest.raises(ValueError, match="2 figures for 3 columns"):
        Three.of(figures[:2])


def test_a_scaled_row_is_another_one() -> None:
    row = three([1, 2, 4])
    assert list(row.scaled(0.5).figures) == [0.5, 1, 2]
    assert list(row.figures) == [1, 2, 4]


@pytest.mark.parametrize("shared", [False, True])
def test_adding_makes_no_object_that_stays(shared: bool) -> None:
    """Else the agent would measure its own book-keeping as what a task leaves behind."""
    totals, profile = TaskTotals(), TaskProfile()
    if shared:
        totals = TaskTotals.over(memoryview(bytearray(8 * TaskTotals.SIZE)).cast("d"))

    def add() -> None:
        totals.add_run(0, 0.25)
        totals.add_delta(1e6)
        totals.add_peak(1e6)
        age = profile.begin()
        profile.add_audit(age, 1e6, 1e6)
        profile.add_kernel(age, 1.0, 1.0, 1.0, 1e6)
        profile.add_garbage(age, 1e6, 1e6)
        profile.add_sample(age, 1e6, 1e6, only_large=False)

    # In Python 3.10 a function gets its cache of opcodes in its 1,024th call; counts above 256 are
    # objects, and the row's own are replaced by others.
    for _ in range(1_100):
        add()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(100):
        add()
    assert abs(sys.getallocatedblocks() - before) < 10
