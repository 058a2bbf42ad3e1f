"""A soft time limit may be raised anywhere in the agent: the heap is as it was nevertheless."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

import celery_memory_exporter.agent
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import measured
from tests.agent.audit.harness import failing, make_meter, returning

pytestmark = pytest.mark.usefixtures("heap_as_it_was")

AGENT = os.path.dirname(celery_memory_exporter.agent.__file__)


def interrupted_at(call: int, meter: Meter, body: Callable[..., Any]) -> tuple[str, bool]:
    """Where a soft time limit reached the agent, at its so manieth call around a run; and whether
    all was as before then."""
    trace = measured(meter, "t", body)
    seen, place = 0, ""

    def arrive(frame: FrameType, event: str, arg: object) -> None:
        nonlocal seen, place
        code = frame.f_code
        # Signals are looked at when a function is entered; the wrapper itself is no more than its
        # calls.
        if (
            event == "call"
            and code.co_filename.startswith(AGENT)
            and code.co_name != "measured_trace"
        ):
            seen += 1
            if seen == call:
                place = code.co_name
                sys.setprofile(None)
                raise SoftTimeLimitExceeded

    # The first run of a type is audited, and each first run makes the same calls.
    for known in (meter.totals.rows, meter.totals.growth, meter.deep.dossiers):
        known.clear()  # type: ignore[attr-defined]
    sys.setprofile(arrive)
    try:
        trace("uuid", (), {}, {})
    except SoftTimeLimitExceeded:
        pass
    finally:
        sys.setprofile(None)
    as_before = meter.occupancy.idle and gc.get_freeze_count() == 0
    gc.unfreeze()
    return place, as_before


def places_that_leave_a_mess(body: Callable[..., Any]) -> set[str]:
    meter, left = make_meter(), set()
    for call in range(1, 1_000):
        place, as_before = interrupted_at(call, meter, body)
        if not place:
            break
        if not as_before:
            left.add(place)
            meter = make_meter()
    assert call > 50
    return left


ENDINGS = pytest.mark.parametrize(
    "body", [returning(lambda: None), failing(lambda: None)], ids=["succeeds", "fails"]
)
#: Between the run's end and its closing readings.
SETTLING = {"settle", "outcome_of", "put", "_encoded", "close"}


@ENDINGS
def test_a_soft_time_limit_during_the_readings_leaves_the_heap_as_it_was(
    body: Callable[..., Any],
) -> None:
    assert places_that_leave_a_mess(body) - SETTLING == set()


@ENDINGS
def test_a_soft_time_limit_before_the_closing_readings_leaves_the_heap_as_it_was(
    body: Callable[..., Any],
) -> None:
    assert places_that_leave_a_mess(body) & SETTLING == set()
