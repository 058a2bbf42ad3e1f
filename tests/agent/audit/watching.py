"""A figure that lines make rise, and a watch over them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celery_memory_exporter.agent.audit.lines import LineWatch

FIGURE = [0.0]
KEPT: list[Any] = []


@pytest.fixture
def no_other_tracer() -> Iterator[None]:
    """Without the tracer of a debugger or coverage tool, which each test would rightly give way
    to."""
    before = sys.gettrace()
    sys.settrace(None)
    FIGURE[0] = 0.0
    yield
    KEPT.clear()
    sys.settrace(before)


def follow(body: Callable[[], object], **options: Any) -> LineWatch:
    watch = LineWatch({"figure": lambda: FIGURE[0], "unknown": lambda: None}, **options)
    assert watch.start()
    try:
        body()
    finally:
        watch.stop()
    return watch


def tops(
    watch: LineWatch, body: Callable[..., object], name: str = "figure"
) -> list[tuple[int, float]]:
    """As line numbers within ``body``, whose ``def`` is line 0."""
    first = body.__code__.co_firstlineno
    return [(int(site.rpartition(":")[2]) - first, amount) for site, amount in watch.top(name)]


def rise(size: float) -> None:
    FIGURE[0] += size
