"""A process's past in few points."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.worker.history import SIZE, History

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
    assert len(points) <= SIZE
    assert [point[0] for point in points] == sorted({point[0] for point in points})
    assert points[:1] == [[time, 0.0] for time in times[:1]], "the first one stays"
    assert points[-1:] == [[time, len(times) - 1.0] for time in times[-1:]], "the last one is now"
    assert all(times[int(number)] == time for time, number in points), "each is as it was told"


@given(st.integers(3 * SIZE, 5_000))
def test_points_are_spread_evenly(count: int) -> None:
    points = filled([15.0 * number for number in range(count)]).points
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(points)]
    assert len(points) >= SIZE // 2
    assert max(gaps) <= 4 * 15.0 * count / len(points)


def test_a_short_past_is_told_in_full() -> None:
    assert filled([float(number) for number in range(SIZE)]).points == [
        [float(n), float(n)] for n in range(SIZE)
    ]
