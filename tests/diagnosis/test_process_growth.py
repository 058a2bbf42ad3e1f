"""Processes that grow without a task type that explains it, and how each worker is doing."""

from __future__ import annotations

from typing import Any

import pytest

from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import Container
from celery_memory_exporter.diagnosis.process_growth import (
    allocator_keeps,
    floors,
    headroom,
    hourly,
    of_worker,
    rise,
    suspects,
)
from celery_memory_exporter.fleet.snapshot import WorkerView
from tests import samples
from tests.diagnosis.evidence import (
    MIB,
    Series,
    diagnosis_of,
    evidence_of,
    history,
    nothing,
    suspect,
    view,
)


def growing(n: int) -> float:
    return (40.0 + 4 * n) * MIB


def with_main(live: Series, **changes: Any) -> WorkerView:
    processes = [samples.process("main", 100, history=history(live)), samples.process("0", 101)]
    return view(evidence_of(nothing), processes=processes, **changes)


def with_child(**past: Any) -> WorkerView:
    child = samples.process("0", 101, history=history(**past))
    return view(evidence_of(nothing), processes=[samples.process("main", 100), child])


# --- values -------------------------------------------------------------------------------------


def test_the_floor_of_each_quarter() -> None:
    assert floors([5.0, 1.0, 6.0, 2.0, 7.0, 3.0, 8.0, 4.0]) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("live", "rose"),
    [
        (growing, 48.0 * MIB),
        (lambda n: 40.0 * MIB, 0),
        (lambda n: (40.0 + 30 * (n % 3)) * MIB, 0),
        (lambda n: (40.0 + (20 if n >= 8 else 0)) * MIB, 0),
        (lambda n: (100.0 - n) * MIB, 0),
    ],
)
def test_a_rise_is_one_from_each_quarters_floor_to_the_next(live: Series, rose: float) -> None:
    process = samples.process("0", 101, history=history(live))
    assert rise(process, "live_bytes") == rose


def test_a_short_life_tells_no_rise() -> None:
    assert rise(samples.process("0", 101, history=history(growing)[:7]), "live_bytes") == 0
    assert rise(samples.process("0", 101, history=history(growing)[:8]), "live_bytes") > 0


def test_what_grew_is_told_an_hour() -> None:
    assert hourly(samples.process("0", 101, history=history(growing)), 100.0) == 400.0


# --- the main process ---------------------------------------------------------------------------


def test_a_main_process_that_grows_is_named_without_a_task() -> None:
    (found,) = diagnosis_of(with_main(growing)).suspects
    assert (found.task, found.growth_class, found.process) == (None, "main", "main")
    assert found.retained_bytes_per_hour == 60 * MIB * 4


def test_requests_that_wait_in_the_main_process_explain_its_growth() -> None:
    waiting = [Container("celery.worker.state.requests", "dict", 50_000, 50_000)]
    (found,) = diagnosis_of(
        with_main(lambda n: (40 + min(n, 3) * 20) * MIB, containers=waiting)
    ).suspects
    assert found.holder == "celery.worker.state.requests"
    assert "eta" in found.advice


def test_a_young_main_process_that_grows_without_a_holder_is_not_named_yet() -> None:
    """Large messages that are prefetched."""
    held = Container("shop.seen", "dict", 600, 590)
    for step, containers, named in ((60.0, [], True), (5.0, [], False), (5.0, [held], True)):
        main = samples.process("main", 100, history=history(growing, step=step))
        worker = view(evidence_of(nothing), processes=[main], main_containers=containers)
        assert bool(diagnosis_of(worker).suspects) is named


def test_what_grows_in_the_main_process_holds_it() -> None:
    held = [Container("shop.seen", "dict", 600, 590)]
    (found,) = diagnosis_of(with_main(growing, main_containers=held)).suspects
    assert found.holder == "shop.seen"
    assert found.advice.startswith("shop.seen grows. The worker's main process grows")
    assert "eta" not in found.advice


@pytest.mark.parametrize(
    "live",
    [
        lambda n: 40 * MIB,
        lambda n: (40 + 30 * (n % 3)) * MIB,
        lambda n: (40 + (20 if n else 0)) * MIB,
    ],
)
def test_a_main_process_that_is_steady_or_goes_up_and_down_is_not_accused(live: Series) -> None:
    assert diagnosis_of(with_main(live)).suspects == ()


# --- children -----------------------------------------------------------------------------------


def test_a_child_that_grows_for_long_is_named_where_no_task_type_explains_it() -> None:
    worker = with_child(live=growing)
    (found,) = suspects(worker, [])
    assert (found.growth_class, found.process, found.processes) == ("python", "0", 1)
    assert suspects(worker, [suspect(growth_class="native")]) == []
    assert suspects(worker, [suspect(growth_class="descriptors")]) == [found]


def test_a_child_that_has_not_lived_for_long_is_not_accused() -> None:
    assert suspects(with_child(live=growing, step=39.0), []) == []
    assert suspects(with_child(live=growing, step=40.0), []) != []


# --- the worker ---------------------------------------------------------------------------------


def test_memory_that_the_allocator_keeps_is_told_of_the_worker() -> None:
    worker = with_child(
        live=lambda n: 30.0 * MIB, anon=lambda n: (30.0 + 4 * n) * MIB, free=3.5 * MIB
    )
    (verdict,) = diagnosis_of(worker).workers
    assert (verdict.leaking, verdict.growth_class) == (False, "allocator")
    assert "jemalloc" in verdict.advice


@pytest.mark.parametrize(
    "past",
    [
        {"live": lambda n: 30.0 * MIB, "anon": lambda n: (30.0 + 4 * n) * MIB, "free": 0.0},
        {"live": growing, "anon": growing, "free": 3.5 * MIB},
        {"live": lambda n: 30.0 * MIB, "anon": lambda n: 30.0 * MIB, "free": 3.5 * MIB},
    ],
)
def test_memory_in_use_or_that_the_heap_does_not_hold_is_not_the_allocators(past: Any) -> None:
    assert not allocator_keeps(samples.process("0", 101, history=history(**past)))


def test_time_to_the_memory_limit_at_the_present_rate() -> None:
    worker = view(evidence_of(lambda _: 1.0 * MIB), child_memory_limit_bytes=200 * MIB)
    (verdict,) = diagnosis_of(worker).workers
    assert verdict.leaking
    used, rate = (50 + 70) * MIB, 400 * 60 * MIB
    assert verdict.seconds_to_limit == pytest.approx((400 * MIB - used) / rate * 3600, rel=0.1)


def test_without_a_limit_of_the_pool_it_is_the_containers() -> None:
    cgroup = CgroupMemory(limit_bytes=512 * MIB, usage_bytes=300 * MIB, working_set_bytes=250 * MIB)
    worker = view(None, cgroup=cgroup)
    assert headroom(worker) == (250 * MIB, 512 * MIB, False)
    found = [suspect(retained_bytes_per_hour=262.0 * MIB)]
    assert of_worker(worker, found, known=False).seconds_to_limit == 3600


def test_what_the_main_process_leaves_does_not_count_towards_the_childrens_limit() -> None:
    worker = view(None, child_memory_limit_bytes=200 * MIB)
    assert headroom(worker) == (120 * MIB, 400 * MIB, True)
    verdict = of_worker(worker, [suspect(growth_class="main")], known=False)
    assert (verdict.leaking, verdict.seconds_to_limit) == (True, None)
    assert verdict.retained_bytes_per_hour == 540_000
