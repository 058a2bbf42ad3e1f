"""A browser, pages in it, and what they show."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.integration.page.site import Site
from tests.integration.page.visit import DESKTOP, PATIENCE_MS, Open, Visit
from tests.integration.programs import need


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = need("chromium", "chromium-browser", "google-chrome")
    # Chromium's sandbox is not for root, as whom containers run their tests.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=sandbox, timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens the page at an address; at the end, nothing may have gone wrong on it."""
    visits: list[Visit] = []

    def open_one(
        url: str, viewport: dict[str, int] | None = None, scheme: str = "light", **options: bool
    ) -> Visit:
        context = browser.new_context(viewport=viewport or DESKTOP, color_scheme=scheme)
        visits.append(Visit(context.new_page(), url, **options))
        return visits[-1]

    yield open_one
    # Before a request that is under way fails, since its page is closed.
    trouble = [list(visit.trouble) for visit in visits]
    for visit in visits:
        visit.page.context.close()
    assert trouble == [[] for _ in visits]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    site.server.start()
    yield site
    site.server.stop()
