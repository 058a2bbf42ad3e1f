"""Audited runs: exact figures, and a heap that is always as it was."""

from __future__ import annotations

import gc
import itertools
import mmap
import os
import pickle
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import SoftTimeLimitExceeded
from celery.app.trace import TraceInfo, trace_ok_t
from hypothesis import given
from hypothesis import strategies as st

import celery_memory_exporter.agent
from celery_memory_exporter.agent.audit.audit import (
    AUDITS_PER_STEP,
    CREDIT_SECONDS,
    FULL_COLLECTIONS_OWED,
    INTERPRETERS_OWN,
    SHARE,
    Auditor,
)
from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter import answers
from celery_memory_exporter.agent.meter.books import TRACEBACK_BLOCKS
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats import growth
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.growth import Growth
from celery_memory_exporter.agent.stats.readings import Readings

#: Past what the first runs of a process set up (line caches, the C heap's own).
WARM = 12
AGENT = os.path.dirname(celery_memory_exporter.agent.__file__)
ROOM: list[Any] = []


class Thing:
    """Something to keep."""


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    ROOM.extend([None] * 10_000)
    yield
    ROOM.clear()
    left = gc.get_freeze_count()
    gc.unfreeze()
    assert left <= INTERPRETERS_OWN, "a frozen heap is never collected again"


def keep(count: int, kind: type = object) -> None:
    """Into room that is there already."""
    first = ROOM.index(None)
    for place in range(count):
        ROOM[first + place] = kind()


def make_meter(**options: Any) -> Meter:
    """One with time for each audit, and none for deep ones."""
    meter = Meter(Guard(), Readings(), **{"max_tasks": 200, "pickles_failures": True, **options})
    meter.auditor.budget, meter.deep.budget = Budget(0.0, 1e9), Budget(0.0, -1.0)
    return meter


def answer(value: Any = None) -> trace_ok_t:
    """As Celery makes it: runtime and text are new objects."""
    return trace_ok_t(value, None, float("0.25"), "".join(list(repr(value)[:1024])))


def failed(error: Exception) -> trace_ok_t:
    return trace_ok_t(ExceptionInfo(), TraceInfo("FAILURE", error), None, None)


def failing(body: Callable[[], object]) -> Callable[..., trace_ok_t]:
    def trace(*_: Any) -> trace_ok_t:
        try:
            body()
            raise ValueError("no way")  # the traceback, and so this frame, is part of the answer
        except ValueError as error:
            return failed(error)

    return trace


def audits(
    trace: Callable[..., Any], runs: int = 10, args: Callable[[], tuple[Any, ...]] = tuple
) -> list[dict[str, float]]:
    """Figures of each of so many runs that are past start-up."""
    meter = make_meter()
    wrapped = measured(meter, "t", trace)
    found = []
    for number in range(WARM + runs):
        wrapped("uuid", args(), {}, {})
        grown = meter.books.growth["t", ""]
        row = grown.row
        totals = {
            name: sum(row[at : growth.FAILED : growth.WIDTH])
            for at, name in enumerate(growth.COLUMNS)
        }
        totals |= {"failed": row[growth.FAILED], "failed_blocks": row[growth.FAILED_BLOCKS]}
        assert totals["audited"] == 1
        if number >= WARM:
            found.append(totals)
        grown.row[:] = growth.new_row()
        grown.audits = 0  # else they get rarer
    assert meter.guard.errors == 0
    return found


def returning(body: Callable[[], Any]) -> Callable[..., trace_ok_t]:
    return lambda *_: answer(body())


def mostly(figures: list[Any], expected: Any) -> bool:
    """Each run's. In Python 3.10 a function gets its cache of opcodes in its 1,024th call: some
    blocks, in a run or two."""
    return sum(each != expected for each in figures) <= (2 if sys.version_info < (3, 11) else 0)


# --- exact figures ------------------------------------------------------------------------------


def test_a_run_that_keeps_nothing_leaves_nothing() -> None:
    found = audits(returning(lambda: None))
    assert mostly([(each["blocks"], each["native"]) for each in found], (0, 0))


def test_twenty_objects_are_twenty_blocks() -> None:
    assert mostly([each["blocks"] for each in audits(returning(lambda: keep(20)))], 20)


def test_native_memory_that_is_kept_is_told_to_the_byte() -> None:
    if Readings().native_live() is None:
        pytest.skip("no mallinfo2 here: musl, an old glibc, or another allocator")
    found = audits(returning(lambda: keep(1, lambda: bytearray(200_000))))  # type: ignore[arg-type]
    assert {each["blocks"] for each in found} == {2}, "the object and its bytes"
    assert all(200_000 <= each["native"] < 200_000 + 8192 for each in found)


def test_cycles_leave_nothing_but_their_garbage_is_told() -> None:
    def cycles() -> None:
        for _ in range(100):
            cycle: list[Any] = []
            cycle.append(cycle)

    found = audits(returning(cycles))
    assert mostly([each["blocks"] for each in found], 0)
    assert all(200 <= each["garbage_blocks"] < 260 for each in found), (
        "100 lists, and room for an item of each"
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


def test_tracing_that_begins_within_a_run_leaves_no_gap_in_its_figures() -> None:
    try:
        found = audits(
            returning(lambda: tracemalloc.start() if not tracemalloc.is_tracing() else None), runs=2
        )
    finally:
        tracemalloc.stop()
    assert [each["native"] for each in found] == [0, 0]


# --- runs that fail -----------------------------------------------------------------------------


def test_what_an_exception_holds_is_not_left_behind() -> None:
    found = audits(failing(lambda: [str(number) for number in range(10_000)]))
    assert mostly(
        [(each["failed"], each["failed_blocks"], each["blocks"]) for each in found], (1, 0, 0)
    )


def test_a_payload_in_the_failing_frame_is_not_left_behind() -> None:
    def trace(*_: Any) -> trace_ok_t:
        payload = [str(number) for number in range(10_000)]
        try:
            raise ValueError(len(payload))
        except ValueError as error:
            return failed(error)

    assert mostly([each["failed_blocks"] for each in audits(trace)], 0)


def test_what_a_failing_run_keeps_is_told() -> None:
    found = audits(failing(lambda: keep(20)))
    assert all(20 <= each["failed_blocks"] <= 20 + TRACEBACK_BLOCKS for each in found)


def test_what_a_failing_run_keeps_is_told_to_the_block() -> None:
    assert mostly([each["failed_blocks"] for each in audits(failing(lambda: keep(20)))], 20)


def test_the_pool_gets_the_very_same_failure() -> None:
    made: list[ExceptionInfo] = []

    def trace(*_: Any) -> trace_ok_t:
        made.append((answered := failing(lambda: None)()).retval)
        return answered

    meter = make_meter()
    answered = measured(meter, "t", trace)("uuid", (), {}, {})
    assert type(answered.retval) is answers.Pickled, "this run was audited"
    got = pickle.loads(pickle.dumps(answered.retval))
    expected = pickle.loads(pickle.dumps(made[0]))
    assert type(got) is ExceptionInfo
    assert (got.type, str(got), got.traceback, got.internal) == (
        made[0].type,
        str(made[0]),
        made[0].traceback,
        made[0].internal,
    )
    assert repr(got.exception) == repr(expected.exception)
    assert [got.tb.tb_lineno, got.tb.tb_frame.f_code.co_name] == [
        made[0].tb.tb_lineno,
        made[0].tb.tb_frame.f_code.co_name,
    ]
    assert (answered.info.state, answered.runtime, answered.retstr) == ("FAILURE", None, None)


@pytest.mark.parametrize("error", [TypeError, SoftTimeLimitExceeded])
def test_an_exception_that_does_not_pickle_is_handed_on_unchanged(error: type[Exception]) -> None:
    class StubbornError(Exception):
        def __reduce__(self) -> Any:
            raise error

    meter = make_meter()
    given = trace_ok_t(StubbornError(), TraceInfo("FAILURE", StubbornError()), None, None)
    assert measured(meter, "t", lambda *_: given)("uuid", (), {}, {}) is given
    assert meter.books.growth["t", ""].audits == 0
    assert meter.books.rows["t", ""][1] == 1


def test_a_failure_that_is_too_long_to_wait_is_handed_on_unchanged() -> None:
    meter = make_meter()
    given = trace_ok_t(
        ValueError("x" * answers.ROOM), TraceInfo("FAILURE", ValueError()), None, None
    )
    assert measured(meter, "t", lambda *_: given)("uuid", (), {}, {}) is given
    assert meter.books.growth["t", ""].audits == 0


def test_failures_stay_as_they_are_where_the_pool_does_not_pickle() -> None:
    meter = make_meter(pickles_failures=False)
    given = failing(lambda: None)()
    assert measured(meter, "t", lambda *_: given)("uuid", (), {}, {}) is given
    assert meter.books.growth["t", ""].audits == 0


# --- what the worker gets -----------------------------------------------------------------------


@given(st.none() | st.text(st.characters(codec=None, categories=None)), st.floats(0, 1e6))
def test_the_worker_gets_what_the_tracer_answered(text: str | None, runtime: float) -> None:
    stash = answers.Stash()
    stashed = stash.put(trace_ok_t(object(), None, runtime, text))
    assert (stashed.retval, stashed.retstr) == (None, None)
    assert stash.take(stashed) == trace_ok_t(None, None, runtime, text)


def test_surrogates_pass() -> None:
    text = "\ud800 and \udfff"
    trace = measured(make_meter(), "t", lambda *_: trace_ok_t(None, None, 0.5, text))
    assert trace("uuid", (), {}, {}).retstr == text


def test_a_text_that_does_not_fit_the_stash_is_handed_on() -> None:
    text = "x" * (answers.ROOM + 1)
    meter = make_meter()
    assert measured(meter, "t", lambda *_: trace_ok_t(1, None, 0.5, text))("uuid", (), {}, {}) == (
        None,
        None,
        0.5,
        text,
    )
    assert meter.books.growth["t", ""].audits == 0


# --- survivors ----------------------------------------------------------------------------------


def test_survivors_are_exactly_what_was_kept() -> None:
    meter = make_meter()
    trace = measured(meter, "t", returning(lambda: keep(2, Thing)))
    for _ in range(growth.WARM_RUNS_AT_LEAST + 10):
        trace("uuid", (), {}, {})
    assert meter.books.growth["t", ""].survivors == {f"{__name__}.Thing": 20}, (
        "what start-up leaves is not told"
    )


def test_survivors_of_failing_runs_are_told_without_their_exceptions() -> None:
    meter = make_meter()
    trace = measured(meter, "t", failing(lambda: keep(2, Thing)))
    for _ in range(growth.WARM_RUNS_AT_LEAST + 10):
        trace("uuid", (), {}, {})
    assert meter.books.growth["t", ""].survivors == {f"{__name__}.Thing": 20}


def test_an_audit_keeps_nothing_alive() -> None:
    meter = make_meter()
    trace = measured(meter, "t", returning(lambda: keep(1, Thing)))
    for _ in range(WARM):
        trace("uuid", (), {}, {})
    ghosts = [weakref.ref(thing) for thing in ROOM[:WARM]]
    assert all(ghost() is not None for ghost in ghosts)
    ROOM.clear()
    assert [ghost() for ghost in ghosts] == [None] * WARM


# --- where it must not --------------------------------------------------------------------------


def test_never_where_the_application_froze_its_heap() -> None:
    meter = make_meter()
    gc.freeze()
    frozen = gc.get_freeze_count()
    try:
        measured(meter, "t", returning(lambda: None))("uuid", (), {}, {})
        assert gc.get_freeze_count() == frozen
    finally:
        gc.unfreeze()
    assert meter.books.growth["t", ""].audits == 0
    assert not meter.auditor.enabled


def test_never_where_the_collector_is_debugged() -> None:
    meter = make_meter()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        measured(meter, "t", returning(lambda: None))("uuid", (), {}, {})
    finally:
        gc.set_debug(0)
    assert meter.books.growth["t", ""].audits == 0
    assert gc.garbage == []


def test_never_where_it_is_off() -> None:
    meter = make_meter(audits=False)
    measured(meter, "t", returning(lambda: None))("uuid", (), {}, {})
    assert meter.books.growth["t", ""].audits == 0


def test_an_application_that_unfreezes_the_heap_ends_audits() -> None:
    meter = make_meter()
    trace = measured(meter, "t", returning(gc.unfreeze))
    trace("uuid", (), {}, {})
    assert not meter.auditor.enabled
    assert (meter.books.growth["t", ""].audits, meter.books.growth["t", ""].survivors) == (0, {})


# --- the heap is put back -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, SystemExit, SoftTimeLimitExceeded]
)
def test_the_heap_is_unfrozen_when_the_run_ends_by_an_exception(error: type[BaseException]) -> None:
    def trace(*_: Any) -> Any:
        assert gc.get_freeze_count() > 0, "this run is audited"
        raise error

    meter = make_meter()
    with pytest.raises(error):
        measured(meter, "t", trace)("uuid", (), {}, {})
    assert gc.get_freeze_count() == 0
    assert meter.idle
    assert meter.books.rows["t", ""][answers.ABORTED] == 1


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
    for known in (meter.books.rows, meter.books.growth, meter.deep.dossiers):
        known.clear()  # type: ignore[attr-defined]
    sys.setprofile(arrive)
    try:
        trace("uuid", (), {}, {})
    except SoftTimeLimitExceeded:
        pass
    finally:
        sys.setprofile(None)
    as_before = meter.idle and gc.get_freeze_count() == 0
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


# --- full collections ---------------------------------------------------------------------------


def test_full_collections_that_audits_held_up_are_made_up_for() -> None:
    auditor = Auditor(Readings(), enabled=True)
    first, second, third = gc.get_threshold()
    before = gc.get_stats()[-1]["collections"]

    def audit_one() -> int:
        auditor.begin()
        auditor.finish(answer())
        return gc.get_stats()[-1]["collections"] - before

    assert audit_one() == 2, "the audit's own"
    auditor._owed[0] = FULL_COLLECTIONS_OWED * second * max(1, third) + 1
    assert audit_one() == 5
    assert audit_one() == 7, "the debt is paid"
    gc.disable()
    try:
        auditor._owed[0] = FULL_COLLECTIONS_OWED * second * max(1, third) + 1
        assert audit_one() == 9, "an application without automatic collections gets none"
    finally:
        gc.enable()
    assert first


def test_collections_that_freezing_would_forget_are_owed() -> None:
    """``gc.freeze`` sets the counts to zero, so they are read before."""
    auditor = Auditor(Readings(), enabled=True)
    before = auditor._owed[0]
    gc.collect()
    kept: list[Any] = [[] for _ in range(3 * gc.get_threshold()[0])]
    young = gc.get_count()[1]
    auditor.begin()
    auditor.abandon()
    assert young >= 1, f"{len(kept)} lists are more than a young generation"
    assert auditor._owed[0] >= before + young


def test_a_process_that_a_task_forks_has_a_heap_that_is_collected() -> None:
    meter = make_meter()
    seen: list[int] = []

    def fork() -> None:
        frozen = gc.get_freeze_count()
        meter.after_fork()  # as the hook does in the new process
        seen.append(frozen)
        seen.append(gc.get_freeze_count())

    measured(meter, "t", returning(fork))("uuid", (), {}, {})
    assert seen[0] > 0
    assert seen[1] == 0
    assert meter.guard.errors == 0


def test_a_run_in_which_somebody_forks_is_left_out() -> None:
    meter = make_meter()
    trace = measured(meter, "t", returning(meter.disturb))
    for _ in range(10):
        trace("uuid", (), {}, {})
    assert meter.books.growth["t", ""].audits == 0
    assert meter.books.rows["t", ""][0] == 10


def test_a_file_system_in_memory_that_is_gone_is_no_error(tmp_path: Path) -> None:
    readings = Readings([str(tmp_path), str(tmp_path / "gone")])
    assert readings.tmpfs() > 0
    meter = Meter(Guard(), Readings([str(tmp_path / "gone")]), max_tasks=200)
    measured(meter, "t", returning(lambda: None))("uuid", (), {}, {})
    assert (meter.guard.errors, meter.books.growth["t", ""].audits) == (0, 1)


def test_garbage_from_before_is_freed_at_last() -> None:
    """Audits reset the counters that automatic full collections wait for."""
    meter = make_meter()
    meter.auditor._owed[0] = 1e9
    cycle = Thing()
    cycle.myself = cycle  # type: ignore[attr-defined]
    ghost = weakref.ref(cycle)
    gc.collect()
    del cycle
    measured(meter, "t", returning(lambda: None))("uuid", (), {}, {})
    assert ghost() is None


# --- how often ----------------------------------------------------------------------------------


def test_a_budget_is_a_credit_and_a_share_of_busy_time() -> None:
    budget = Budget(0.01, 0.5)
    assert budget.left(0.0) == 0.5
    budget.spend(0.75)
    assert budget.left(10.0) == pytest.approx(-0.15)
    assert budget.left(100.0) == pytest.approx(0.75)


def test_nothing_is_audited_beyond_the_budget() -> None:
    auditor = Auditor(Readings(), enabled=True)
    grown = Growth()
    grown.begin()
    assert auditor.due(grown, 1, lambda: 0.0)
    auditor.budget.spend(CREDIT_SECONDS)
    assert not auditor.due(Growth(), 1, lambda: 0.0)
    assert auditor.due(Growth(), 1, lambda: CREDIT_SECONDS / SHARE), (
        "a share of busy time comes on top"
    )


def test_audits_are_on_the_budget() -> None:
    meter = make_meter()
    measured(meter, "t", returning(lambda: None))("uuid", (), {}, {})
    assert meter.auditor.budget.spent > 0


def test_when_the_budget_is_scarce_rare_types_go_first() -> None:
    auditor = Auditor(Readings(), enabled=True)
    rare, frequent = Growth(), Growth()
    for grown in (rare, frequent):
        grown.begin()
    frequent.audits, rare.audits, auditor.audits = 20, 2, 22
    auditor.budget.spend(0.95 * CREDIT_SECONDS)
    assert auditor.due(rare, 2, lambda: 0.0)
    assert not auditor.due(frequent, 2, lambda: 0.0)


def test_a_rare_type_is_audited_in_each_run_and_a_frequent_one_ever_more_seldom() -> None:
    meter = make_meter()
    trace = measured(meter, "t", returning(lambda: None))
    audited: list[int] = []
    while len(audited) < 4 * AUDITS_PER_STEP:
        before = meter.auditor.audits
        trace("uuid", (), {}, {})
        if meter.auditor.audits > before:
            audited.append(meter.runs)
    pauses = [later - earlier for earlier, later in itertools.pairwise(audited)]
    step = AUDITS_PER_STEP
    assert set(pauses[: step - 1]) == {1}
    for number in range(1, 4):
        # By chance, since a task may do in every second run what it undoes in the next.
        assert set(pauses[number * step + 1 : (number + 1) * step]) <= set(range(1, 2 * number + 2))
    assert len(set(pauses)) > 2


def test_a_run_that_frees_more_than_it_makes_is_audited_like_any_other() -> None:
    kept = [[number] for number in range(20_000)]

    def clear() -> None:
        kept.clear()
        kept.extend([number] for number in range(2_000))

    meter = make_meter()
    measured(meter, "t", returning(clear))("uuid", (), {}, {})
    assert meter.auditor.enabled
    assert meter.books.growth["t", ""].row[growth.BLOCKS] < -10_000


def test_an_audit_spends_nothing_while_it_waits_for_a_processor() -> None:
    """As on a crowded machine; here a callback of the collector lets it wait."""
    auditor, waiting = Auditor(Readings(), enabled=True), threading.Event()

    def wait(phase: str, _: dict[str, int]) -> None:
        waiting.wait(0.1 if phase == "start" else 0.0)

    gc.callbacks.append(wait)
    try:
        auditor.begin()
        auditor.finish(answer())
    finally:
        gc.callbacks.remove(wait)
    assert 0 < auditor.budget.spent < 0.1
