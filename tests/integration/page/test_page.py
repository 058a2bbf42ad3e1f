"""The page in a real browser: with a worker that leaks, by keyboard, in the dark, on a phone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from celery_memory_exporter.common.report import Container
from celery_memory_exporter.fleet.facts import QueueReading
from tests import samples
from tests.integration.exporter import Exporter
from tests.integration.figures import succeeded
from tests.integration.page.site import MIB, Site, fine
from tests.integration.page.visit import PHONE, Open, Visit, accessible
from tests.integration.stage import Stage
from tests.integration.waiting import wait_for
from tests.integration.worker import Worker

pytestmark = pytest.mark.integration


LEAK = "tests.integration.tasks.leak"


def leaks_until_named(stage: Stage, exporter: Exporter, worker: Worker) -> None:
    """Fifty runs after another, until the leak has its holder and its line."""
    sent = 0

    def suspects() -> list[Any]:
        nonlocal sent
        if (succeeded(exporter, worker, "leak") or 0) >= sent:
            stage.send(worker, "leak", 1, times=50)
            sent += 50
        diagnosis = json.loads(exporter.text_of("/api/v1/diagnosis"))
        return [each for each in diagnosis["suspects"] if each["task"] == LEAK]

    wait_for(
        suspects,
        "the leak with its holder and line",
        lambda found: found and found[0]["holders"] and found[0]["sites"],
    )


def test_a_leaking_worker(stage: Stage, open_page: Open) -> None:
    # Without other workers of this machine, which would be on the picture.
    exporter = stage.configured(broker={"url": stage.broker.url}, processes={"enabled": False})
    worker = stage.worker("-c", "2")
    visit = open_page(f"http://127.0.0.1:{exporter.port}/")
    headline = visit.page.locator("#headline")
    expect(headline).to_have_text("No leak known yet in 1 worker")
    expect(visit.page.locator("#no-suspects")).to_contain_text("No verdict yet")
    stage.send(worker, "noop", times=300)
    leaks_until_named(stage, exporter, worker)
    stage.send(worker, "leak", 1, times=3_000)  # more than there are of anything else that grew
    expect(headline).to_have_text("1 leak in 1 of 1 worker")
    expect_all_about_it(visit, worker)
    for scheme in ("dark", "light"):
        visit.page.emulate_media(color_scheme=scheme)
        assert accessible(visit) == []
        visit.screenshot(scheme)
    visit.page.set_viewport_size(PHONE)
    visit.screenshot("narrow")


def expect_all_about_it(visit: Visit, worker: Worker) -> None:
    """In the suspect's article, the worker's row and what unfolds below it, and the sections."""
    suspect = visit.page.get_by_role("article").filter(has_text=LEAK)
    for part in (
        "a run",
        worker.nodename,
        "tests.integration.tasks.MyCacheEntry",
        "tests.integration.tasks.CACHE",
        "tests/integration/tasks.py:",
    ):
        expect(suspect).to_contain_text(part)
    row = visit.row(worker.nodename)
    expect(row).to_contain_text("leaking")
    curve = re.compile("RSS in the past .*: from .* MiB to .* MiB")
    expect(row.get_by_role("img", name=curve)).to_be_visible()
    row.get_by_role("button").click()
    for part in ("child 0", "child 1", str(worker.pid), "tests.integration.tasks.MyCacheEntry"):
        expect(row).to_contain_text(part)
    expect(row.locator(".c-age")).to_have_text(re.compile(r"\d s ago"))
    expect(visit.page.locator("#queues")).to_contain_text(worker.queue)
    expect(visit.page.locator("#cleared-section")).to_contain_text("1 task type")


def test_how_to_begin(site: Site, open_page: Open) -> None:
    visit = open_page(site.url)
    expect(visit.page.locator("#headline")).to_have_text("No worker seen yet")
    expect(visit.page.locator("#hint")).to_contain_text("celery-memory-exporter serve --broker-url")
    expect(visit.page.locator("#no-workers")).to_contain_text(
        "celery -A proj worker -I celery_memory_exporter.autoload"
    )
    assert accessible(visit) == []
    site.fleet.apply_source("broker", up=False)
    site.fleet.apply_worker_event("celery@bare", "worker-heartbeat", 1, site.now)
    expect(visit.page.locator("#headline")).to_have_text("No worker has the agent")
    expect(visit.page.locator("#no-suspects")).to_contain_text(
        "celery -A proj worker -I celery_memory_exporter.autoload"
    )
    expect(visit.page.locator("#sources")).to_contain_text("broker down")
    expect(visit.page.locator("#hint")).to_be_hidden()


def test_names_from_the_network_are_text(site: Site, open_page: Open) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    site.report(
        f"celery@{hostile}",
        tasks=[samples.task(hostile), fine(f"</script><script>alert(2)</script>{hostile}")],
        containers=[Container(hostile, hostile, 5, 5)],
    )
    site.fleet.apply_queues("", [QueueReading(hostile, 1)], site.now)
    visit = open_page(site.url)
    expect(visit.page.get_by_role("heading", name=hostile)).to_be_visible()
    visit.page.locator(".unfold").click()
    visit.page.locator("summary").click()
    expect(visit.page.locator(".detail").get_by_role("rowheader", name=hostile)).to_be_visible()
    expect(visit.page.locator("#cleared").get_by_role("rowheader")).to_contain_text(
        "</script><script>alert(2)"
    )
    assert visit.page.locator("img, main script, iframe").count() == 0


def test_by_keyboard(site: Site, open_page: Open) -> None:
    for number in range(3):
        site.report(f"celery@web{number}", rss=(60 - 10 * number) * MIB, tasks=[fine()])
    site.fleet.apply_worker_event(
        "celery@bare", "worker-heartbeat", 1, site.now
    )  # its memory is not known
    visit = open_page(site.url)
    keyboard = visit.page.keyboard
    expect(visit.page.locator("#workers > tbody")).to_have_count(4)
    assert visit.names() == ["celery@web0", "celery@web1", "celery@web2", "celery@bare"]

    def tab_to(name: str) -> Locator:
        for _ in range(30):
            keyboard.press("Tab")
            if (
                visit.page.evaluate(
                    "(document.activeElement.ariaLabel ?? document.activeElement.innerText)"
                )
                == name
            ):
                return visit.page.locator(":focus")
        raise AssertionError(f"no Tab leads to {name}")

    tab_to("RSS")
    header = visit.page.get_by_role("columnheader", name="RSS", exact=True)
    keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    assert visit.names() == ["celery@web2", "celery@web1", "celery@web0", "celery@bare"]
    assert visit.page.locator("[aria-sort]").count() == 1
    details = tab_to("Details of celery@web2")
    assert details.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    keyboard.press("Enter")
    expect(details).to_have_attribute("aria-expanded", "true")
    expect(visit.row("celery@web2").locator(".detail")).to_contain_text("child 0")
    keyboard.press("Space")
    expect(details).to_have_attribute("aria-expanded", "false")
    assert accessible(visit) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone(site: Site, open_page: Open, scheme: str) -> None:
    for number in range(4):
        site.report(
            f"celery@web{number}.a-long-name.example.org",
            tasks=[samples.task("shop.orders.tasks.process_and_cache"), fine()],
        )
    visit = open_page(site.url, PHONE, scheme)
    visit.page.locator(".unfold").first.click()
    visit.page.locator("summary").click()
    assert visit.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert visit.page.evaluate(
        "[...document.querySelectorAll('.sheet')].every(each => each.scrollWidth <= "
        "each.clientWidth)"
    )
    assert accessible(visit) == []
    visit.screenshot(f"phone-{scheme}")
