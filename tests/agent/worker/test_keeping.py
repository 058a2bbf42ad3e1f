"""When what outlives a worker is written, and what then."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.worker.keeping import Keeper
from celery_memory_exporter.agent.worker.ledger import Ledger
from celery_memory_exporter.agent.worker.requests import RequestCounter
from celery_memory_exporter.agent.worker.shared_map import Shape
from celery_memory_exporter.agent.worker.state import State
from celery_memory_exporter.agent.worker.state_folder import StateFolder
from tests.agent.worker.known import totals

REQUEST: Any = SimpleNamespace(name="t", message=None, delivery_info={"routing_key": "q"})


class Kept:
    """A keeper, and what is in its files."""

    def __init__(self) -> None:
        self.folder = StateFolder(None)
        self.state = State(self.folder, "celery@web1", Shape.of(2, 10))
        self.guard = Guard()
        self.ledger = Ledger(200)
        self.requests = RequestCounter(self.guard, Settings(), self.state.journal)
        self.requests.stop()  # of signals
        self.keeper = Keeper(self.guard, self.state, self.ledger, self.requests)

    @property
    def told(self) -> dict[str, Any] | None:
        name = f"{self.state.name}.json"
        if name not in self.folder.names():
            return None
        told: dict[str, Any] = json.loads(self.folder.read(name, 2**20))
        return told


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_before_the_first_report_there_is_nothing_to_keep(kept: Kept) -> None:
    kept.keeper.keep()
    assert kept.told is None
    assert kept.keeper.wants_report
    kept.keeper.keep({"sequence": 0})
    assert kept.told is not None
    assert not kept.keeper.wants_report


def test_the_last_report_is_kept_with_what_has_changed_since(kept: Kept) -> None:
    kept.keeper.keep({"worker": "celery@web1", "children_started": 7})
    kept.ledger.add_child(8, 0, None)
    kept.ledger.apply(totals(8, 5, ("t", "q")))
    kept.ledger.remove_child(8, "oom", "t")
    kept.requests.count("task-started", REQUEST, {})
    kept.keeper.keep()
    told = kept.told
    assert told is not None
    report = told["report"]
    assert (report["worker"], report["children_started"]) == ("celery@web1", 1)
    assert report["lost"] == [{"name": "t", "reason": "oom", "count": 1}]
    assert report["children_exited"] == {"oom": 1}
    assert [row["started"] for row in report["traffic"]] == [1]
    assert [(name, queue, figures[0]) for name, queue, figures in told["kept"]] == [("t", "q", 5)]


def test_a_full_journal_has_all_counts_written(kept: Kept) -> None:
    kept.keeper.keep({})
    for _ in range(5_000):
        kept.requests.count("task-started", REQUEST, {})
    told = kept.told
    assert told is not None
    (row,) = told["report"]["traffic"]
    since = list(kept.state.journal.events(told["journal"]))
    assert row["started"] + len(since) == 5_000
    assert 0 < len(since) < 5_000


def test_what_cannot_be_written_is_noted_and_keeps_nobody_from_going_on(kept: Kept) -> None:
    kept.keeper.keep({"not": {"json"}})
    assert kept.guard.errors == 1
    kept.keeper.keep({})
    assert kept.told is not None


def test_when_all_has_been_told_nothing_is_left(kept: Kept) -> None:
    kept.keeper.keep({})
    kept.keeper.forget()
    kept.keeper.keep({})
    assert (kept.folder.names(), kept.guard.errors) == ([], 0)
