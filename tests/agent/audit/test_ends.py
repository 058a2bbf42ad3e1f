"""What is read at both ends of a run, from readings that are known."""

from __future__ import annotations

from typing import Any

import pytest

from celery_memory_exporter.agent.audit.ends import Ends
from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES


class Known(Readings):
    """Answers with what the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.native: int | None = 1000
        self.thread_counts = [1]
        self.open = 5

    def native_live(self) -> int | None:
        return self.native

    def fds(self) -> int:
        return self.open

    def threads(self) -> int:
        return self.thread_counts.pop(0) if len(self.thread_counts) > 1 else self.thread_counts[0]


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def ends(known: Known) -> Ends:
    """Opened."""
    ends = Ends(known)
    ends.open()
    ends.open_heap()
    return ends


def test_what_is_left_is_that_after_less_that_before(known: Known, ends: Ends) -> None:
    known.native, known.open = 5000, 7
    ends.close_heap()
    ends.close()
    finding = ends.finding({"dict": 1})
    assert (finding.native, finding.fds, finding.types) == (4000.0, 2.0, {"dict": 1})
    assert (finding.garbage_native, finding.garbage_blocks) == (0.0, 0.0)


@pytest.mark.parametrize("at_the_end", [None, 1000])
def test_what_is_unknown_at_either_end_is_nothing(known: Known, at_the_end: Any) -> None:
    known.native = 1000 if at_the_end is None else None
    ends = Ends(known)
    ends.open()
    ends.open_heap()
    known.native = at_the_end
    ends.close_heap()
    ends.close()
    assert ends.finding({}).native == 0.0


def test_garbage_is_what_was_there_before_it_was_freed(known: Known, ends: Ends) -> None:
    known.native = 9000
    ends.close_heap()
    known.native = 3000
    ends.close_without_garbage()
    ends.close()
    finding = ends.finding({})
    assert (finding.native, finding.garbage_native) == (2000.0, 6000.0)


def test_a_confirmed_reading_is_without_what_it_has_too_much(known: Known, ends: Ends) -> None:
    known.native = 2000
    blocks = []
    for too_much in (0.0, 0.0, 3000.0):
        ends.close_confirmed(100.0, too_much)
        left = ends.left()
        ends.close()
        finding = ends.finding({})
        assert finding.native == 900.0
        assert left == finding.blocks + 900.0 / MEAN_BLOCK_BYTES
        blocks.append(finding.blocks)
    assert blocks[1] - blocks[2] == pytest.approx(3000, abs=500)  # pytest has its own meanwhile


def test_a_thread_that_is_about_to_go_is_waited_for(known: Known, ends: Ends) -> None:
    known.thread_counts = [2, 2, 1]
    ends.close_heap()
    ends.close()
    assert ends.finding({}).threads == 0.0
