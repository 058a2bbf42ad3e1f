"""What only a process itself can know."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator

import pytest

from celery_memory_exporter.agent.stats.readings import Readings
from celery_memory_exporter.agent.worker.figures import OwnFigures, own_figures
from celery_memory_exporter.common.report import ProcessReport


@pytest.fixture
def _disabled() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_each_figure_is_one_of_the_reports() -> None:
    reported = {each.name for each in dataclasses.fields(ProcessReport)}
    assert {each.name for each in dataclasses.fields(OwnFigures)} <= reported


def test_figures_of_this_process() -> None:
    kept = [object() for _ in range(10_000)]
    figures = own_figures(Readings(), objects=123, peak_bytes=456)
    assert figures.python_blocks is not None
    assert figures.python_blocks > len(kept)
    assert (figures.gc_objects, figures.peak_rss_bytes) == (123, 456)
    assert figures.gc_uncollectable == len(gc.garbage)
    assert figures.gc_collections == [each["collections"] for each in gc.get_stats()]
    assert figures.gc_enabled == 1


@pytest.mark.usefixtures("_disabled")
def test_a_collector_that_the_application_turned_off_is_told() -> None:
    assert own_figures(Readings(), objects=None, peak_bytes=0).gc_enabled == 0


def test_what_has_not_been_told_is_unknown() -> None:
    assert set(dataclasses.astuple(OwnFigures())) == {None}
