"""The page while it goes on: what a refresh keeps, a large fleet, an exporter that does not answer,
and when nobody looks."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from tests import samples
from tests.integration.page.site import MIB, Site, fine
from tests.integration.page.visit import Open

pytestmark = pytest.mark.integration


def test_a_refresh_keeps_what_the_reader_has_done(site: Site, open_page: Open) -> None:
    for number in range(60):
        site.report(f"celery@web{number}", rss=(100 - number) * MIB, tasks=[fine()])
    visit = open_page(site.url)
    visit.page.get_by_label("Filter workers by name").fill("web1")
    expect(visit.page.locator("#shown")).to_have_text("11 of 60 shown")
    details = visit.page.get_by_role("button", name="Details of celery@web12", exact=True)
    details.click()
    visit.page.evaluate("scrollTo(0, 300)")
    visit.page.evaluate("window.kept = [...document.querySelectorAll('#workers > tbody')]")
    site.tick()
    site.report(
        "celery@web12", rss=500 * MIB, tasks=[fine()]
    )  # it goes from its place to the first
    expect(visit.page.locator("#workers > tbody").first).to_contain_text("550.0 MiB")
    assert visit.names()[0] == "celery@web12"
    assert visit.page.evaluate("window.kept.every(each => each.isConnected)")
    expect(details).to_be_focused()
    expect(details).to_have_attribute("aria-expanded", "true")
    assert visit.page.evaluate("scrollY") == 300
    assert visit.page.locator("#workers > tbody").count() == 11
    site.report("celery@new", tasks=[samples.task()])
    expect(visit.page.locator("#headline")).to_have_text("1 leak in 1 of 61 workers")
    assert visit.page.evaluate("window.kept.every(each => each.isConnected)")


def test_members_of_a_group_have_alike_processes(site: Site, open_page: Open) -> None:
    site.fleet = Fleet(
        Rules(samples.BOOT, Limits(), worker_groups=((re.compile("celery@pod-.*"), "celery@pods"),))
    )
    for number in range(3):
        site.report(f"celery@pod-{number}", tasks=[fine()])
    visit = open_page(site.url)
    visit.page.get_by_role("button", name="Details of celery@pods", exact=True).click()
    processes = visit.page.get_by_role("table", name="Processes").locator("tbody > tr")
    expect(processes).to_have_count(6)
    for grown in (500, 600):
        site.tick()
        for number in range(3):
            site.report(f"celery@pod-{number}", rss=grown * MIB, tasks=[fine()])
        expect(
            visit.page.get_by_role("table", name="Processes").get_by_text(f"{grown}.0 MiB")
        ).to_have_count(3)
        expect(processes).to_have_count(6)


def test_five_hundred_workers(site: Site, open_page: Open) -> None:
    for _ in range(3):
        site.tick()
        for number in range(500):
            tasks = [samples.task() if number < 12 else fine("shop.leak")]
            processes = [
                samples.process(str(child), child, rss_bytes=(50 + number % 90) * MIB)
                for child in range(9)
            ]
            site.report(f"celery@web{number}", tasks=tasks, processes=processes)
    visit = open_page(site.url)
    expect(visit.page.locator("#headline")).to_have_text("1 leak in 12 of 500 workers")
    expect(visit.page.get_by_role("article")).to_have_count(1)
    expect(visit.page.get_by_role("article")).to_contain_text("and 9 more")
    expect(visit.page.locator("#workers > tbody")).to_have_count(50)
    assert {visit.row(f"celery@web{number}").count() for number in range(12)} == {
        1
    }  # the worst ones first
    visit.page.get_by_role("button", name="Show all 500 workers").click()
    expect(visit.page.locator("#workers > tbody")).to_have_count(500)
    assert set(visit.names()) == {f"celery@web{number}" for number in range(500)}
    visit.page.evaluate("window.kept = [...document.querySelectorAll('#workers *')]")
    site.tick()
    site.report("celery@web499", rss=900 * MIB, tasks=[fine("shop.leak")])
    expect(visit.row("celery@web499")).to_contain_text("950.0 MiB")
    assert visit.page.evaluate(
        "window.kept.length > 5000 && window.kept.every(each => each.isConnected)"
    )
    visit.page.get_by_label("Filter workers by name").fill("web499")
    assert visit.names() == ["celery@web499"]


def test_an_exporter_that_does_not_answer(site: Site, open_page: Open) -> None:
    site.report("celery@web1")
    visit = open_page(site.url)
    trouble = visit.page.get_by_role("alert")
    expect(trouble).to_be_hidden()
    site.broken = True
    expect(trouble).to_contain_text("The exporter does not answer (status 500)")
    expect(visit.row("celery@web1")).to_contain_text("leaking")
    expect(visit.page.locator("#freshness")).to_contain_text("updated")
    site.broken = False
    expect(trouble).to_be_hidden()
    # Chromium itself tells of each answer that is an error.
    assert visit.trouble
    assert all("status of 500" in each for each in visit.trouble)
    visit.trouble.clear()


def test_it_asks_nobody_while_it_is_paused_or_hidden(site: Site, open_page: Open) -> None:
    visit = open_page(site.url, clock=True)
    asked: list[str] = []
    visit.page.on("request", lambda request: asked.append(request.url))
    pause = visit.page.get_by_role("button", name="Pause")
    pause.click()
    expect(pause).to_have_attribute("aria-pressed", "true")
    expect(visit.page.locator("#freshness")).to_contain_text("paused, updated")
    asked.clear()
    visit.page.clock.run_for(60_000)
    assert asked == []
    with visit.page.expect_response("**/api/v1/overview") as answer:
        pause.click()
    answer.value.finished()
    expect(visit.page.locator("#freshness")).not_to_contain_text("paused")
    visit.page.evaluate(
        "Object.defineProperty(document, 'hidden', {value: true}); document.dispatchEvent(new "
        "Event('visibilitychange'))"
    )
    asked.clear()
    visit.page.clock.run_for(60_000)
    assert asked == []
