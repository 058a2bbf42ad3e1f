"""What the container probe finds to grow, and things to grow it with."""

from __future__ import annotations

from collections.abc import Callable

from celery_memory_exporter.agent.heap.containers import ContainerRow, Probe

#: No walk takes so long.
FOREVER = 3600.0


def rows_after(grow: Callable[[], object], times: int = 3) -> dict[str, ContainerRow]:
    """Rows by path after one walk before and one after ``grow`` was called so often."""
    probe = Probe(size=200)
    assert probe.work(FOREVER)
    for _ in range(times):
        grow()
    assert probe.work(FOREVER)
    return {row.path: row for row in probe.rows()}


def counter() -> Callable[[], str]:
    """A new string at each call."""
    numbers = iter(range(10**9))
    return lambda: f"key-{next(numbers)}"
