"""Whether runs leave something behind, by each of the three standards."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.evidence import Profile
from celery_memory_exporter.common.left_behind import (
    COUNTS,
    PROCESS,
    SUSPICION,
    VERDICT,
    Garbage,
    LeftBehind,
    Standard,
    Sums,
    mean_of,
)
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES

KIB = 1024.0
STANDARDS = {"suspicion": SUSPICION, "process": PROCESS, "verdict": VERDICT}
NONE = Sums(*[0.0] * len(Sums._fields))


def audited(*sizes: float, blocks: float = 0.0, **columns: float) -> Sums:
    """Audited runs that left so many native bytes each, and so many blocks in sum."""
    squares = sum(size * size for size in sizes)
    sums = NONE._replace(audited=float(len(sizes)), native=sum(sizes), squares=squares)
    return sums._replace(blocks=blocks, **columns)


def read(*sizes: float, **columns: float) -> Sums:
    """Runs that were only read before and after."""
    squares = sum(size * size for size in sizes)
    sums = NONE._replace(sampled=float(len(sizes)), sampled_bytes=sum(sizes))
    return sums._replace(sampled_squares=squares, **columns)


def sure_of(sums: Sums) -> set[str]:
    """The standards by which something is left behind."""
    return {name for name, standard in STANDARDS.items() if LeftBehind(sums, standard)}


def test_the_columns_are_the_profiles() -> None:
    assert Sums._fields == tuple(each.name for each in dataclasses.fields(Profile))
    assert set(COUNTS) < set(Sums._fields)


# --- by audits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sums", "sure"),
    [
        (NONE, set()),
        (audited(*[2000.0] * 3), {"process"}),
        (audited(*[2000.0] * 4), {"process", "suspicion"}),
        (audited(*[2000.0] * 14), {"process", "suspicion"}),
        (audited(*[2000.0] * 15), {"process", "suspicion", "verdict"}),
        (audited(*[15.9] * 15), set()),
        (audited(*[16.0] * 15), {"process"}),
        (audited(*[23.9] * 15), {"process"}),
        (audited(*[24.0] * 15), {"process", "suspicion", "verdict"}),
    ],
)
def test_audits_and_bytes_that_each_standard_asks_for(sums: Sums, sure: set[str]) -> None:
    assert sure_of(sums) == sure


@pytest.mark.parametrize(
    ("grew", "of", "sure"),
    [
        (2, 4, {"process"}),
        (3, 5, {"process", "suspicion"}),
        (5, 18, {"process", "suspicion"}),
        (6, 18, {"process", "suspicion", "verdict"}),
        (1, 20, {"process"}),
    ],
)
def test_standard_errors_that_each_standard_asks_for(grew: int, of: int, sure: set[str]) -> None:
    """So many runs of all left the same: sqrt(grew * of / (of - grew)) standard errors."""
    assert sure_of(audited(*[9000.0] * grew, *[0.0] * (of - grew))) == sure


@pytest.mark.parametrize(
    ("sums", "sure"),
    [
        (audited(*[800.0] * 8, *[0.0] * 12), {"process"}),
        (audited(*[800.0] * 10, *[0.0] * 10), {"process", "suspicion", "verdict"}),
        (audited(*[2560.0] * 8, *[0.0] * 12), {"process", "suspicion", "verdict"}),
        (audited(*[800.0] * 8, *[0.0] * 12, blocks=4.0), {"process"}),
        (audited(*[800.0] * 8, *[0.0] * 12, blocks=5.0), {"process", "suspicion", "verdict"}),
    ],
)
def test_some_hundred_native_bytes_in_fewer_than_half_of_the_runs_are_the_heaps_caches(
    sums: Sums, sure: set[str]
) -> None:
    squares = sums.squares + (sums.blocks * MEAN_BLOCK_BYTES) ** 2 / sums.audited
    assert sure_of(sums._replace(squares=squares)) == sure


def test_the_verdict_asks_for_several_steps() -> None:
    """Two large steps among small ones, beyond doubt in sum."""
    sums = audited(*[2000.0] * 15, blocks=20.0)
    few = sums._replace(squares=sums.size**2 / 2.9)
    several = sums._replace(squares=sums.size**2 / 3.1)
    sure = dataclasses.replace(VERDICT, certainty=0.0)
    assert (LeftBehind(few, sure).steadily, LeftBehind(several, sure).steadily > 0) == (0, True)


@pytest.mark.parametrize(
    ("seen", "of", "sure"),
    [(7, 25, False), (6, 15, False), (15, 15, True), (20, 40, True)],
)
def test_a_block_now_and_then_is_no_leak_for_the_verdict(seen: int, of: int, sure: bool) -> None:
    """What leaves one in eleven runs is seen seven times in 25 by chance: the mean is above the
    least one, and no more than that."""
    sums = audited(*[0.0] * of, blocks=float(seen))
    sums = sums._replace(squares=seen * MEAN_BLOCK_BYTES**2)
    assert bool(LeftBehind(sums, VERDICT).steadily) is sure


def test_the_amount_is_the_mean() -> None:
    sums = audited(*[2000.0] * 20, blocks=20.0)._replace(squares=20 * 2090.0**2)
    for standard in STANDARDS.values():
        assert LeftBehind(sums, standard).steadily == 2000 + MEAN_BLOCK_BYTES


# --- by all measured runs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sums", "sure"),
    [
        (read(64 * KIB, *[0.0] * 99), {"process"}),
        (read(64 * KIB, *[0.0] * 95, audited=4.0), {"process", "suspicion"}),
        (read(63 * KIB, *[0.0] * 95, audited=4.0), {"process"}),
        (read(64 * KIB, *[0.0] * 126, audited=4.0), {"process"}),
        (read(*[64 * KIB] * 2, *[0.0] * 94, audited=4.0), {"process", "suspicion"}),
        (read(*[64 * KIB] * 3, *[0.0] * 97), {"process", "verdict"}),
        (read(*[40 * KIB] * 3, *[0.0] * 97), {"process"}),
        (read(*[64 * KIB] * 3, *[0.0] * 400), {"process"}),
        (read(*[15.9] * 100), set()),
        (read(*[16.0] * 100), {"process"}),
    ],
)
def test_much_in_few_runs_that_each_standard_asks_for(sums: Sums, sure: set[str]) -> None:
    assert sure_of(sums) == sure


#: Audits say that each run makes 12 KiB of garbage.
GARBAGE = {"audited": 10.0, "garbage_native": 120 * KIB}


def test_how_much_garbage_is_taken_off_readings() -> None:
    rising, falling = read(*[10 * KIB] * 100, **GARBAGE), read(*[-KIB] * 100, **GARBAGE)
    for garbage, rose, fell in (
        (Garbage.NOTHING, 1000, -100),
        (Garbage.AS_MUCH_AS_READ, 0, -100),
        (Garbage.ALL, -200, -1300),
    ):
        assert rising.large_mean(garbage).total == rose * KIB
        assert falling.large_mean(garbage).total == fell * KIB


@pytest.mark.parametrize(
    ("kib", "sure"),
    [
        (100, {"process"}),
        (199, {"process", "verdict"}),
        (270, {"process", "verdict", "suspicion"}),
    ],
)
def test_garbage_in_readings_speaks_for_a_process_and_against_suspicion_only(
    kib: int, sure: set[str]
) -> None:
    """Audited runs left so much in sum, in four steps; the others read as if each had left 10
    KiB."""
    sums = read(*[10 * KIB] * 100, **GARBAGE, large=kib * KIB)
    assert sure_of(sums._replace(large_squares=(kib * KIB) ** 2 / 4, sampled_squares=0.0)) == sure


def test_what_other_runs_freed_speaks_for_the_verdict_and_not_for_the_agent() -> None:
    """What audits saw come was large, and went in runs that were only read."""
    seen = audited(*[9000.0] * 20, large=180_000.0, large_squares=20 * 9000.0**2)
    freed = seen._replace(sampled=20.0, sampled_bytes=-180_000.0, sampled_squares=20 * 9000.0**2)
    for standard, steadily in ((SUSPICION, 9000.0), (PROCESS, 9000.0), (VERDICT, 0.0)):
        assert LeftBehind(freed, standard).steadily == steadily


# --- what the kernel counts -----------------------------------------------------------------------


@pytest.mark.parametrize("column", COUNTS)
def test_a_descriptor_or_the_like_in_ten_runs(column: str) -> None:
    sums = audited(*[0.0] * 20)
    for standard in STANDARDS.values():
        assert LeftBehind(sums._replace(**{column: 2.0}), standard).counts == (column,)
        assert not LeftBehind(sums._replace(**{column: 1.0}), standard)
    few = audited(*[0.0] * 3)._replace(**{column: 3.0})
    assert sure_of(few) == {"process"}


@pytest.mark.parametrize(
    ("shared", "sure"),
    [
        (1023.0, set()),
        (1024.0, {"verdict"}),
        (4095.0, {"verdict"}),
        (4096.0, {"verdict", "suspicion"}),
        (2.0**40, {"verdict", "suspicion"}),
    ],
)
def test_shared_memory_is_told_by_no_process_of_itself(shared: float, sure: set[str]) -> None:
    assert sure_of(audited(*[0.0] * 20, shared=20 * shared)) == sure
    assert LeftBehind(audited(*[0.0] * 20, shared=20 * 4096.0), VERDICT).shared == 4096


# --- means ----------------------------------------------------------------------------------------


def test_a_mean_its_error_and_how_many_runs_carry_it() -> None:
    same = mean_of(10, 1000.0, 10 * 100.0**2)
    assert (same.per_run, same.error, same.steps, same.total) == (100, 0, 10, 1000)
    assert same.certainty == math.inf
    step = mean_of(10, 1000.0, 1000.0**2)
    assert (step.per_run, step.error, step.steps) == (100, pytest.approx(94.868, abs=0.001), 1)
    assert step.certainty == pytest.approx(1.054, abs=0.001)


def test_no_runs_have_no_mean() -> None:
    assert (NONE.mean().runs, NONE.mean().per_run, NONE.mean().certainty) == (0, 0, 0)
    assert NONE.per_audit("fds") == NONE.garbage == 0


def test_small_amounts_are_the_audited_runs_and_large_ones_all_runs() -> None:
    """Half of the runs were audited: 100 bytes each, and one of them left 1 MiB; nine of the others
    did."""
    mib = 1024 * KIB
    sums = audited(*[100.0] * 99, mib, large=mib, large_squares=mib**2)
    sums = sums._replace(sampled=100.0, sampled_bytes=9 * mib, sampled_squares=9 * mib**2)
    assert sums.mean().per_run == pytest.approx(99.0 + 10 * mib / 200)
    assert sums.mean().runs == 200
    assert sums.audited_mean().per_run == pytest.approx(99.0 + mib / 100)


figures = st.floats(0, 1e6)


@st.composite
def measured(draw: st.DrawFn) -> Sums:
    """Sums that runs can have: squares no smaller than the mean's."""
    sums = Sums(*[draw(figures) for _ in Sums._fields])
    sums = sums._replace(audited=float(draw(st.integers(0, 400))))
    squares = sums.size**2 / max(1.0, sums.audited) * draw(st.floats(1, 100))
    return sums._replace(squares=squares, large=min(sums.large, sums.size))


@given(measured(), st.sampled_from(list(STANDARDS.values())))
def test_as_many_processes_again_that_saw_the_same_make_nothing_less_sure(
    sums: Sums, standard: Standard
) -> None:
    one, two = (
        LeftBehind(sums, standard),
        LeftBehind(Sums(*[2 * each for each in sums]), standard),
    )
    assert bool(two.steadily) >= bool(one.steadily)
    assert bool(two.in_steps) >= bool(one.in_steps)
    assert set(two.counts) >= set(one.counts)
    assert two.shared >= one.shared


@given(st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_runs_that_were_all_audited_and_left_nothing_large_have_one_mean(
    sizes: list[float],
) -> None:
    sums = audited(*sizes)
    assert sums.mean().per_run == pytest.approx(sums.audited_mean().per_run)
    assert sums.mean().error == pytest.approx(sums.audited_mean().error) or not sizes
