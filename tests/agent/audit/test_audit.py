"""What an audited run leaves behind, to the block."""

from __future__ import annotations

import gc
import mmap
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.stats.profile import Column
from celery_memory_exporter.agent.stats.readings import Readings
from tests.agent.audit.harness import (
    answer,
    audits,
    figures_of,
    keep,
    make_meter,
    mostly,
    profile_of,
    returning,
    run,
)

pytestmark = pytest.mark.usefixtures("heap_as_it_was")


def test_a_run_that_keeps_nothing_leaves_nothing() -> None:
    found = audits(returning(lambda: None))
    assert mostly([(each["blocks"], each["native"]) for each in found], (0, 0))


def test_twenty_objects_are_twenty_blocks() -> None:
    assert mostly([each["blocks"] for each in audits(returning(lambda: keep(20)))], 20)


def test_native_memory_that_is_kept_is_told_to_the_byte() -> None:
    if Readings().native_live() is None:
        pytest.skip("no mallinfo2 here: musl, an old glibc, or another allocator")
    found = audits(returning(lambda: keep(1, lambda: bytearray(200_000))))
    assert {each["blocks"] for each in found} == {2}, "the object and its bytes"
    assert all(200_000 <= each["native"] < 200_000 + 8192 for each in found)


def test_cycles_leave_nothing_but_their_garbage_is_told() -> None:
    def cycles() -> None:
        for _ in range(100):
            cycle: list[Any] = []
            cycle.append(cycle)

    found = audits(returning(cycles))
    assert mostly([each["blocks"] for each in found], 0)
    assert all(195 <= each["garbage_blocks"] < 260 for each in found), (
        "100 lists, and room for an item of each; a few lists wait to be used again"
    )


def test_without_garbage_none_is_told() -> None:
    assert mostly([each["garbage_blocks"] for each in audits(returning(lambda: keep(3)))], 0)


def test_arguments_leave_nothing() -> None:
    found = audits(
        lambda uuid, args, kwargs, request: answer(len(args[0])),
        args=lambda: ([str(number) for number in range(10_000)],),
    )
    assert mostly([each["blocks"] for each in found], 0)


def test_return_values_leave_nothing() -> None:
    found = audits(returning(lambda: [str(number) for number in range(50_000)]), runs=3)
    assert mostly([each["blocks"] for each in found], 0)


@pytest.mark.parametrize("length", [0, 1, 20, 100, 600, 1024, 20_000])
def test_texts_of_any_length_leave_nothing(length: int) -> None:
    found = audits(lambda *_: trace_ok_t(None, None, float("0.25"), "".join(["é"] * length)))
    assert mostly([(each["blocks"], each["native"]) for each in found], (0, 0))


def test_descriptors_that_stay_open_are_told() -> None:
    opened: list[int] = []
    found = audits(returning(lambda: opened.append(os.open(os.devnull, os.O_RDONLY))))
    for descriptor in opened:
        os.close(descriptor)
    assert mostly([each["fds"] for each in found], 1)


def test_a_thread_that_was_joined_is_none_that_is_left() -> None:
    """The kernel lists it for an instant longer."""

    def use_a_thread() -> None:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()

    assert mostly([each["threads"] for each in audits(returning(use_a_thread), runs=30)], 0)


def test_a_thread_that_goes_on_is_told() -> None:
    stop = threading.Event()
    found = audits(returning(lambda: threading.Thread(target=stop.wait, daemon=True).start()))
    stop.set()
    assert mostly([each["threads"] for each in found], 1)


def test_runs_in_which_shared_memory_rises_are_counted() -> None:
    maps: list[mmap.mmap] = []

    def share() -> None:
        maps.append(mmap.mmap(-1, 200_000))
        maps[-1].write(b"x" * 200_000)

    found = audits(returning(share))
    assert mostly([each["shared_rises"] for each in found], 1)
    assert all(each["shared"] >= 200_000 for each in found)
    assert sum(each["shared_rises"] for each in audits(returning(lambda: None))) <= 2, (
        "nearly never"
    )


def test_while_the_application_traces_its_allocations_the_c_heap_is_unknown() -> None:
    """What the records of the tracing take would look like a leak of each task that runs."""
    texts: list[str] = []
    tracemalloc.start()
    try:
        found = audits(
            returning(lambda: texts.extend(str(number) for number in range(1_000, 1_020)))
        )
    finally:
        tracemalloc.stop()
    assert {each["native"] for each in found} == {0}
    assert all(20 <= each["blocks"] <= 21 for each in found)


@pytest.mark.parametrize(
    ("begin", "end", "reason"),
    [
        (tracemalloc.start, tracemalloc.stop, "tracemalloc"),
        (lambda: sys.settrace(lambda *_: None), lambda: sys.settrace(None), "trace"),
        (lambda: sys.setprofile(lambda *_: None), lambda: sys.setprofile(None), "profile"),
    ],
)
def test_a_run_that_begins_to_trace_or_profile_says_nothing(
    begin: Callable[[], object], end: Callable[[], object], reason: str
) -> None:
    meter = make_meter()
    trace, profile = sys.gettrace(), sys.getprofile()  # of a coverage tool
    try:
        run(meter, returning(begin))
    finally:
        end()
        sys.settrace(trace)
        sys.setprofile(profile)
    assert meter.auditor.discarded == {reason: 1}
    assert figures_of(profile_of(meter).row)["audited"] == 0


def test_a_run_that_frees_more_than_it_makes_is_audited_like_any_other() -> None:
    kept = [[number] for number in range(20_000)]

    def clear() -> None:
        kept.clear()
        kept.extend([number] for number in range(2_000))

    meter = make_meter()
    gc.collect()  # so that none of all objects is due in the run
    run(meter, returning(clear))
    assert meter.auditor.enabled
    assert profile_of(meter).row[0, Column.BLOCKS] < -10_000


def test_a_file_system_in_memory_that_is_gone_is_no_error(tmp_path: Path) -> None:
    readings = Readings([str(tmp_path), str(tmp_path / "gone")])
    assert readings.tmpfs() > 0
    meter = make_meter(readings=readings)
    run(meter, returning(lambda: None))
    assert (meter.guard.errors, profile_of(meter).audits) == (0, 1)
