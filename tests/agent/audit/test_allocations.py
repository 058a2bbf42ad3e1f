"""Which lines are told to have allocated what a run left behind."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

import celery_memory_exporter
from celery_memory_exporter.agent.audit.allocations import Frame, bytes_by_site, traces_of
from celery_memory_exporter.agent.audit.sites import site_of

PACKAGE = Path(celery_memory_exporter.__file__).parent
LIBRARY: Frame = (json.__file__, 10)
SHOP: Frame = ("/srv/shop/cache.py", 42)
SHOPS_CALLER: Frame = ("/srv/shop/tasks.py", 7)
DEMO: Frame = (str(PACKAGE / "demo" / "shop.py"), 5)
#: A line of each module that runs in the worker.
OWN: list[Frame] = [
    (str(file), 1)
    for room in ("agent", "common")
    for file in sorted((PACKAGE / room).rglob("*.py"))
]


def site(frame: Frame) -> str:
    return site_of(*frame)


def test_bytes_belong_to_the_applications_innermost_line() -> None:
    traces = [([LIBRARY, SHOP, SHOPS_CALLER], 100), ([SHOP, SHOPS_CALLER], 20)]
    assert bytes_by_site(traces) == ({site(SHOP): 120.0}, True)


def test_what_libraries_allocate_for_nobody_is_told_where_there_is_nothing_else() -> None:
    assert bytes_by_site([([LIBRARY], 100)]) == ({site(LIBRARY): 100.0}, False)
    assert bytes_by_site([([LIBRARY], 100), ([SHOP], 1)]) == ({site(SHOP): 1.0}, True)


def test_nothing_allocated_is_nothing_told() -> None:
    assert bytes_by_site([]) == ({}, False)


@pytest.mark.parametrize("own", OWN, ids=lambda frame: str(Path(frame[0]).relative_to(PACKAGE)))
def test_a_line_of_the_agent_is_never_told(own: Frame) -> None:
    assert bytes_by_site([([own], 100), ([own, SHOP], 100)]) == ({}, False)
    assert bytes_by_site([([LIBRARY, own], 100)]) == ({site(LIBRARY): 100.0}, False)
    assert bytes_by_site([([SHOP, own], 100)]) == ({site(SHOP): 100.0}, True)


def test_what_tracing_itself_allocates_is_left_out() -> None:
    assert bytes_by_site([([(tracemalloc.__file__, 1), SHOP], 100)]) == ({}, False)


def test_the_demo_application_is_told_like_any_other() -> None:
    assert bytes_by_site([([DEMO], 100)]) == ({site(DEMO): 100.0}, True)


def test_a_line_that_nobody_can_look_up_is_no_applications() -> None:
    assert bytes_by_site([([("<string>", 1), SHOP], 100)]) == ({site(SHOP): 100.0}, True)
    assert bytes_by_site([([("<string>", 1)], 100)]) == ({"<string>:1": 100.0}, False)


def test_a_snapshot_is_read_from_the_innermost_frame_on() -> None:
    def allocate() -> bytes:
        return bytes(123_457)

    tracemalloc.start(2)
    try:
        kept = allocate()
        traces = list(traces_of(tracemalloc.take_snapshot()))
    finally:
        tracemalloc.stop()
    first = allocate.__code__.co_firstlineno
    (frames,) = [frames for frames, size in traces if 0 <= size - len(kept) < 100]
    assert frames[0] == (__file__, first + 1)
    assert frames[1] == (__file__, first + 5)
