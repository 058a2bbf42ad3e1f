"""A page in a browser, and what went wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, expect

from tests.integration.programs import ROOT
from tests.integration.waiting import PATIENCE

ARTIFACTS = Path(os.environ.get("TEST_ARTIFACTS", ROOT / "artifacts"))
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
PATIENCE_MS = PATIENCE * 1000
#: Else the page gives up a request after some seconds and makes another, which on a crowded machine
#: comes to no more.
PATIENT = "AbortSignal.timeout = () => new AbortController().signal"
expect.set_options(timeout=PATIENCE_MS)


class Visit:
    def __init__(self, page: Page, url: str, *, clock: bool = False) -> None:
        self.page = page
        self.url = url
        self.trouble: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(PATIENT)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self.trouble.append(f"failed: {request.url}"))
        page.on("request", self._follow)
        page.on(
            "dialog",
            lambda dialog: (self.trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()),
        )
        if clock:
            page.clock.install()
        page.goto(url)
        expect(page.locator("#freshness")).to_contain_text("updated")

    def _hear(self, message: ConsoleMessage) -> None:
        self.trouble.append(f"{message.type}: {message.text}")

    def _follow(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:")):
            self.trouble.append(f"foreign: {request.url}")

    def row(self, nodename: str) -> Locator:
        return self.page.locator(
            "#workers > tbody", has=self.page.locator(f'th[title="{nodename}"]')
        )

    def names(self) -> list[str]:
        return [
            name or ""
            for name in self.page.locator("#workers > tbody > tr > th > span").all_text_contents()
        ]

    def screenshot(self, name: str) -> None:
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"page-{name}.png", full_page=True)


Open = Callable[..., Visit]


def accessible(visit: Visit) -> list[str]:
    """What axe-core finds against WCAG 2.2 A and AA and its best practices; contrast of what is
    shown among it."""
    results = Axe().run(visit.page)
    return [
        f"{each['id']}: {[node['html'][:150] for node in each['nodes']]}"
        for each in results.response["violations"]
    ]
