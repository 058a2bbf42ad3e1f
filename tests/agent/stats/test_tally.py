"""What runs add up to, in one row of numbers."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.stats import tally


def test_observations_land_in_their_buckets() -> None:
    row = tally.new_row()
    for size in (-1.0, 0.0, 1.0, 1e12):
        tally.observe_delta(row, size)
    report = tally.to_report(
        ("t", "q"), row, retained=(1.5, 2.5, 3.0), evidence=None, native=True, peak=True
    )
    bounds = tally.DELTA_BYTES
    assert report.delta.counts[bounds.index(0.0)] == 2
    assert report.delta.counts[bounds.index(0.0) + 1] == 1
    assert report.delta.counts[-1] == 1
    assert (report.growth_bytes, report.release_bytes, report.delta.sum) == (1e12 + 1, 1.0, 1e12)
    assert (report.retained_blocks, report.retained_native_bytes, report.retained_runs) == (
        1.5,
        2.5,
        3,
    )


def test_what_the_system_cannot_measure_is_absent() -> None:
    report = tally.to_report(
        ("t", "q"),
        tally.new_row(),
        retained=(0.0, 0.0, 0.0),
        evidence=None,
        native=False,
        peak=False,
    )
    assert (report.retained_native_bytes, report.peak) == (None, None)


@given(
    st.lists(
        st.lists(st.integers(0, 2**30), min_size=tally.WIDTH, max_size=tally.WIDTH),
        min_size=1,
        max_size=5,
    )
)
def test_totals_are_the_sums_in_any_order(rows: list[list[int]]) -> None:
    arrays = [array("d", row) for row in rows]
    assert tally.total(arrays) == tally.total(reversed(arrays))
    assert list(tally.total(arrays)) == [sum(column) for column in zip(*rows, strict=True)]
