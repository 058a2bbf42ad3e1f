"""The page's own words for figures are those of the report in the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from celery_memory_exporter.diagnosis.text import amount, duration, size
from tests.diagnosis.evidence import suspect
from tests.integration.page.site import Site
from tests.integration.page.visit import PATIENCE_MS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def page_of_nothing(browser: Browser) -> Iterator[Page]:
    site = Site()
    site.server.start()
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(site.url)
    yield page
    page.close()
    site.server.stop()


@pytest.mark.parametrize(
    "count",
    [
        0,
        1,
        900,
        1023,
        1024,
        1280,
        1331.2,
        1382.4,
        10_445,
        -1280,
        2**20,
        1.25 * 2**20,
        255_121_212,
        2**31 * 1.05,
    ],
)
def test_sizes_and_durations_are_those_of_the_report(count: float, page_of_nothing: Page) -> None:
    assert page_of_nothing.evaluate("count => size(count)", count) == size(count)
    assert page_of_nothing.evaluate("count => duration(count)", abs(count)) == duration(abs(count))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"growth_class": "main", "runs": 0, "retained_bytes_per_run": 0.0},
        {"growth_class": "descriptors", "retained_count_per_run": 1.25},
        {"growth_class": "threads", "retained_count_per_run": 2.0},
    ],
)
def test_what_a_suspect_retains_is_told_as_in_the_report(
    changes: dict[str, Any], page_of_nothing: Page
) -> None:
    told = suspect(**changes)
    shown = page_of_nothing.evaluate(
        "suspect => amounts(suspect).join(', ')", dataclasses.asdict(told)
    )
    assert shown == amount(told)
