"""Containers that grow in the main process."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from celery_memory_exporter.agent.worker.ledger import History
from celery_memory_exporter.agent.worker.main_search import LEAST_GROWN_BYTES, MainSearch


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """A dictionary of the application's."""
    kept: dict[int, str] = {}
    module = ModuleType("shopmain")
    module.seen = kept  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shopmain", module)
    return kept


def grown_by(size: float) -> MainSearch:
    history = History()
    for number, live in enumerate((30e6, 30e6 + size)):
        history.add([float(number), 0.0, 0.0, live, 0.0, 0.0, 0.0, 0.0])
    return MainSearch(history)


def look(search: MainSearch, seen: dict[int, str]) -> list[str]:
    for number in range(2_000):
        seen[len(seen)] = "request"
        if number % 10 == 0:
            search.work()
    return [each.path for each in search.containers()]


def test_while_the_main_process_grows_its_growing_containers_are_found(
    seen: dict[int, str],
) -> None:
    assert "shopmain.seen" in look(grown_by(LEAST_GROWN_BYTES), seen)


def test_where_it_does_not_nothing_is_looked_for(seen: dict[int, str]) -> None:
    assert look(grown_by(LEAST_GROWN_BYTES - 1), seen) == []
