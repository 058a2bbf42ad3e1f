"""Why a pool child ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from celery_memory_exporter.agent.worker.exits import EX_RECYCLE, SIGKILL, Exits
from celery_memory_exporter.agent.worker.figures import OwnFigures
from celery_memory_exporter.agent.worker.ledger import ProcessTotals
from celery_memory_exporter.common.report import EXIT_REASONS

LIMIT = 1_000


def child(
    exit_code: int | None = None, peak: int = 0, last_figures: int | None = None
) -> ProcessTotals:
    return ProcessTotals(
        slot=0,
        start_ticks=None,
        exit_code=exit_code,
        peak_bytes=peak,
        figures=OwnFigures(peak_rss_bytes=last_figures),
    )


def kills(*counts: int | None) -> Callable[[], int | None]:
    """The kernel's count: as it is at the start, and each time that it is asked for afterwards."""
    left: Iterator[int | None] = iter(counts)
    return lambda: next(left)


@pytest.mark.parametrize(
    ("told", "pool", "reason"),
    [
        (child(EX_RECYCLE, peak=LIMIT), EX_RECYCLE, "tasks"),
        (child(EX_RECYCLE, peak=LIMIT + 1), EX_RECYCLE, "memory"),
        (child(None, last_figures=LIMIT + 1), EX_RECYCLE, "memory"),
        (child(EX_RECYCLE), None, "tasks"),
        (child(0), 0, "shutdown"),
        (child(0), None, "shutdown"),
        (child(), 0, "shutdown"),
        (child(), 1, "error"),
        (child(), -11, "signal"),
    ],
)
def test_reasons(told: ProcessTotals, pool: int | None, reason: str) -> None:
    assert Exits(LIMIT, lambda: 0).reason(told, pool) == reason
    assert reason in EXIT_REASONS


def test_without_a_limit_no_child_ends_for_its_memory() -> None:
    assert Exits(None, lambda: 0).reason(child(EX_RECYCLE, peak=10**12), EX_RECYCLE) == "tasks"


@pytest.mark.parametrize("pool", [-SIGKILL, None])
def test_a_kill_that_the_kernel_counted_is_its_own(pool: int | None) -> None:
    assert Exits(None, kills(3, 4)).reason(child(), pool) == "oom"
    assert Exits(None, kills(3, 3)).reason(child(), pool) == "signal"


def test_each_kill_of_the_kernels_explains_one_child() -> None:
    exits = Exits(None, kills(3, 5, 5, 5))
    assert [exits.reason(child(), -SIGKILL) for _ in range(3)] == ["oom", "oom", "signal"]


def test_where_the_kernel_does_not_count_a_kill_is_a_signal() -> None:
    assert Exits(None, kills(None, 4)).reason(child(), -SIGKILL) == "signal"
    assert Exits(None, kills(3, None)).reason(child(), -SIGKILL) == "signal"


def test_another_signal_takes_no_kill() -> None:
    exits = Exits(None, kills(3, 4))
    assert exits.reason(child(), -15) == "signal"
    assert exits.reason(child(), -SIGKILL) == "oom"
