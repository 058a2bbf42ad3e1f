"""What the container probe finds to grow, and things to grow it with."""

from __future__ import annotations

from collections.abc import Callable

from celery_memory_exporter.agent.heap.containers import GrowingContainer, Probe

#: No walk takes so long.
FOREVER = 3600.0


def grown_after(grow: Callable[[], object], times: int = 3) -> dict[str, GrowingContainer]:
    """Containers by path after one walk before and one after ``grow`` was called so often."""
    probe = Probe(size=200)
    assert probe.work(FOREVER)
    for _ in range(times):
        grow()
    assert probe.work(FOREVER)
    return {each.path: each for each in probe.containers()}


def counter() -> Callable[[], str]:
    """A new string at each call."""
    numbers = iter(range(10**9))
    return lambda: f"key-{next(numbers)}"
