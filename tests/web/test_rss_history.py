"""The past hour of each worker's resident memory, by a clock of our own."""

from __future__ import annotations

import dataclasses

from celery_memory_exporter.fleet.snapshot import GroupView, ProcessView, Snapshot, WorkerView
from celery_memory_exporter.web.rss_history import (
    FIRST_STEP_SECONDS,
    LAST_STEP_SECONDS,
    POINTS,
    HistoryKeeper,
    RssHistory,
)
from tests import samples
from tests.diagnosis.evidence import snapshot_of, view

MIB = samples.MIB
WEB1 = ("", "celery@web1")


def of_rss(*sizes: int, **changes: object) -> WorkerView:
    processes = tuple(
        ProcessView(samples.process(str(number), number, rss_bytes=size))
        for number, size in enumerate(sizes)
    )
    return dataclasses.replace(view(None), processes=processes, **changes)


def after(ticks: int) -> tuple[float, list[int | None]]:
    """Of a worker that grows by a byte a tick."""
    history = RssHistory()
    for number in range(ticks):
        history.add(snapshot_of(of_rss(number + 1)), number * FIRST_STEP_SECONDS)
    return history.of(WEB1)


def test_a_point_is_the_sum_of_the_workers_processes() -> None:
    history = RssHistory()
    history.add(snapshot_of(of_rss(50 * MIB, 70 * MIB)), 0.0)
    assert history.of(WEB1) == (FIRST_STEP_SECONDS, [120 * MIB])


def test_nothing_is_known_of_a_worker_that_was_not_there() -> None:
    assert RssHistory().of(WEB1) == (FIRST_STEP_SECONDS, [])


def test_it_begins_with_a_point_each_tick() -> None:
    assert after(4) == (FIRST_STEP_SECONDS, [1, 2, 3, 4])


def test_a_full_series_keeps_every_other_point_and_goes_on_at_half_the_pace() -> None:
    step, points = after(POINTS + 1)
    assert (step, points) == (2 * FIRST_STEP_SECONDS, list(range(1, POINTS + 2, 2)))
    assert after(POINTS + 2)[1] == points
    assert after(POINTS + 3)[1] == [*points, POINTS + 3]


def test_at_its_last_step_it_spans_an_hour_and_forgets_the_oldest() -> None:
    step, points = after(1_000)
    assert step == LAST_STEP_SECONDS
    assert POINTS * LAST_STEP_SECONDS == 3600
    assert len(points) == POINTS
    known = [point for point in points if point is not None]
    assert known == list(range(known[0], known[0] + 4 * POINTS, 4))
    assert known[-1] > 1_000 - 4


def test_a_late_and_an_early_tick_are_one_point_each() -> None:
    history = RssHistory()
    for number, now in enumerate((0.0, 15.4, 29.9, 45.3, 45.4)):
        history.add(snapshot_of(of_rss(number + 1)), now)
    assert history.of(WEB1)[1] == [1, 2, 3, 4]


def test_a_worker_that_is_down_for_a_while_leaves_a_gap() -> None:
    history = RssHistory()
    for number, worker in enumerate((of_rss(5), of_rss(), of_rss(7))):
        history.add(snapshot_of(worker), number * FIRST_STEP_SECONDS)
    assert history.of(WEB1)[1] == [5, None, 7]


def test_a_worker_that_is_forgotten_is_forgotten_here() -> None:
    history = RssHistory()
    history.add(snapshot_of(of_rss(5)), 0.0)
    history.add(Snapshot(()), 15.0)
    assert history.of(WEB1)[1] == []


def test_brokers_are_apart_and_members_of_a_group_together() -> None:
    history = RssHistory()
    members = of_rss(5), of_rss(), of_rss(7)
    elsewhere = of_rss(9, broker="eu")
    history.add(Snapshot((GroupView(members), GroupView((elsewhere,)))), 0.0)
    assert history.of(WEB1)[1] == [12]
    assert history.of(("eu", "celery@web1"))[1] == [9]


def test_the_keeper_has_a_first_point_when_it_has_started() -> None:
    history = RssHistory()
    keeper = HistoryKeeper(history, lambda: snapshot_of(of_rss(5)), monotonic=lambda: 0.0)
    keeper.start()
    assert history.of(WEB1)[1] == [5]
    keeper.stop()
