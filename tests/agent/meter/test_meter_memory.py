"""One run between two readings: what it leaves behind."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter import meter as meter_module
from celery_memory_exporter.agent.meter.calibration import calibrated_meter
from celery_memory_exporter.agent.meter.conditions import Conditions
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.growth import LARGE_NATIVE_BYTES
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.common.evidence import AGES
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES
from tests.agent.meter.runs import (
    KEPT,
    answer,
    make_meter,
    retained,
    retained_bytes,
    run,
    sampled,
)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    KEPT.clear()


def test_a_run_that_keeps_nothing_retains_nothing() -> None:
    meter = make_meter()
    row = run(meter, lambda: None, times=201)
    assert row.runs == 201
    blocks, _, runs = retained(meter)
    assert 190 <= runs <= 200, (
        "the first run of a process pays for start-up and is left out, as those with a collection "
        "are"
    )
    assert abs(blocks) < 1.5, (
        "the interpreter's free lists move by a block or so; an audit is exact"
    )


def test_twenty_small_objects_a_run_are_twenty_blocks_a_run() -> None:
    room: list[object] = [None] * 20 * 400

    def keep() -> None:
        first = room.index(None)
        for place in range(20):
            room[first + place] = object()

    meter = make_meter()
    run(meter, keep, "keeps", 201)
    run(meter, lambda: None, "keeps none", 201)
    kept = retained(meter, "keeps")[0] - retained(meter, "keeps none")[0]
    assert kept == pytest.approx(20, abs=1), "a thread of the test runner may allocate meanwhile"


def test_return_values_are_not_retained() -> None:
    meter = make_meter()
    run(meter, lambda: [str(number) for number in range(100_000)], times=21)
    assert abs(retained_bytes(meter)) < 1024


def test_arguments_are_not_retained() -> None:
    meter = make_meter()
    trace = measured(meter, "t", lambda uuid, args, kwargs, request: answer(value=len(args[0])))
    for _ in range(21):
        trace(
            "uuid",
            ([str(number) for number in range(100_000)],),
            {},
            {"delivery_info": {"routing_key": "celery"}},
        )
    assert abs(retained_bytes(meter)) < 1024


def test_native_memory_that_is_kept_is_retained() -> None:
    meter = make_meter()
    run(meter, lambda: KEPT.append(bytearray(100_000)), times=21)
    assert 99_000 < retained_bytes(meter) < 105_000


def test_with_audits_blocks_and_native_bytes_are_told_apart() -> None:
    meter = make_meter(audits=True)
    run(meter, lambda: KEPT.append(bytearray(100_000)), times=11)
    assert meter.totals.growth["t", "celery"].audits > 5
    blocks, native, _ = retained(meter)
    assert 1 <= blocks <= 3
    assert 99_000 < native < 105_000


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (LARGE_NATIVE_BYTES // 2, 0.0),
        (2 * LARGE_NATIVE_BYTES, 2.0 * LARGE_NATIVE_BYTES),
        (10**6, 1e6),
    ],
)
def test_beside_audits_a_reading_alone_tells_of_much_only(size: int, told: float) -> None:
    """An audit leaves the interpreter's free lists empty, and the next runs fill them."""
    meter = make_meter(audits=True)
    meter.auditor.budget.spend(1e9)
    run(meter, lambda: KEPT.append(bytearray(size)), times=11)
    count, bytes_ = sampled(meter)
    assert count == 10
    assert bytes_ / 10 == pytest.approx(told, rel=0.05)
    assert meter.totals.growth["t", "celery"].audits == 0


def test_a_run_in_which_the_collector_freed_something_is_no_sample() -> None:
    """What it freed is another run's garbage as likely as this one's."""

    def collect() -> None:
        cycle: list[Any] = []
        cycle.append(cycle)
        del cycle
        gc.collect()

    meter = make_meter()
    kept = [[object() for _ in range(1_000)] for _ in range(11)]
    run(meter, lambda: (kept.pop(), collect())[1], times=11)
    assert sampled(meter)[0] == 0


def test_readings_have_a_share_of_the_time_and_those_taken_stand_for_the_others() -> None:
    def keep() -> None:
        KEPT.append(
            tuple([object() for _ in range(50)])
        )  # much, beside what free lists take and give

    meter = make_meter()
    run(meter, keep, times=101)
    meter.sampler.budget.spend(1e9)
    run(meter, keep, times=100)
    assert retained(meter)[2] == 100
    blocks, _, runs = meter.totals.growth["t", "celery"].row.retained()
    assert runs == 200
    assert blocks == pytest.approx(51 * runs, rel=0.05), "a tuple and what is in it"


@pytest.mark.parametrize("value", [0, True, 12345, "some text", "x" * 10_000])
def test_what_is_returned_makes_no_difference(value: object) -> None:
    meter = make_meter()
    trace = measured(meter, "t", lambda *_: trace_ok_t(value, None, float("0.25"), repr(value)))
    for _ in range(101):
        trace("uuid", (), {}, {"delivery_info": {"routing_key": "celery"}})
    assert abs(retained_bytes(meter)) <= len(repr(value)) + 2 * MEAN_BLOCK_BYTES


@pytest.mark.parametrize("value", [0, True, 12345, "some text", "x" * 10_000])
def test_to_an_audit_what_is_returned_makes_no_difference_at_all(value: object) -> None:
    def blocks_a_run() -> float:
        meter = make_meter(audits=True)
        meter.auditor.budget = Budget(0.0, 1e9)
        trace = measured(
            meter,
            "t",
            lambda *_: trace_ok_t(value, None, float("0.25"), "".join(list(repr(value)))),
        )
        for _ in range(21):
            trace("uuid", (), {}, {"delivery_info": {"routing_key": "celery"}})
        return retained(meter)[0]

    # Blocks are counted in the whole process: once in a while a thread of the test runner keeps
    # some.
    assert 0 in (blocks_a_run() for _ in range(3))


def test_a_reading_spends_nothing_while_it_waits_for_a_processor() -> None:
    """As on a crowded machine; here the reading itself waits."""

    class Waiting(Readings):
        seconds = 0.0

        def native_live(self) -> int | None:
            time.sleep(self.seconds)
            return super().native_live()

    readings = Waiting()
    meter = calibrated_meter(Guard(), readings, Conditions(max_tasks=200, audits=False))
    readings.seconds = 0.1
    run(meter, lambda: None)
    assert 0 < meter.sampler.budget.spent < 0.1


def test_while_no_time_is_left_runs_are_not_asked_for_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meter = make_meter()
    asked: list[int] = []
    monkeypatch.setattr(meter.auditor, "due", lambda profile, *_: asked.append(profile.runs))
    meter.sampler.budget = Budget(share=1e-9, credit=-1.0)
    monkeypatch.setattr(meter_module, "LOOK_SECONDS", 3600.0)
    run(meter, lambda: None, times=200)
    ages = [bound + 1 for bound in AGES if bound < 200]
    assert asked == ages, "each age has audits by right"
    assert sampled(meter)[0] == 0
