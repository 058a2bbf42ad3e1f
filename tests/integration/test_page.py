"""The page in a real browser: with a worker that leaks, with a large fleet, by keyboard, in the
dark, and on a phone."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    Request,
    expect,
    sync_playwright,
)
from prometheus_client import CollectorRegistry

from celery_memory_exporter.common.report import Container
from celery_memory_exporter.diagnosis.text import amount, duration, size
from celery_memory_exporter.fleet.facts import QueueReading
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.web.rss_history import FIRST_STEP_SECONDS, RssHistory
from celery_memory_exporter.web.server import Application, HttpServer, bind
from tests import samples
from tests.diagnosis.evidence import evidence_of, suspect
from tests.integration.conftest import PATIENCE, ROOT, Stage, need, wait_for

pytestmark = pytest.mark.integration
ARTIFACTS = Path(os.environ.get("TEST_ARTIFACTS", ROOT / "artifacts"))
MIB = samples.MIB
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
#: Enough for a refresh on a busy machine; what comes sooner ends the wait.
expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = need("chromium", "chromium-browser", "google-chrome")
    # Chromium's sandbox is not for root, as whom containers run their tests.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=sandbox)
        yield browser
        browser.close()


class Visit:
    """A page and what went wrong with it."""

    def __init__(self, page: Page, url: str, *, clock: bool = False) -> None:
        self.page = page
        self.url = url
        self.trouble: list[str] = []
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
    trouble = [
        list(visit.trouble) for visit in visits
    ]  # before a request that is under way fails, since its page is closed
    for visit in visits:
        visit.page.context.close()
    assert trouble == [[] for _ in visits]


class Site:
    """The page on values of ours: the real server, fleet and history behind it."""

    def __init__(self) -> None:
        self.fleet = Fleet(Rules(samples.BOOT, Limits()))
        self.history = RssHistory()
        self.now = 0.0
        listener = bind("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        self.broken = False
        self.server = HttpServer(
            Application(CollectorRegistry(), self.snapshot, dict, self.history), listener
        )

    def snapshot(self) -> Snapshot:
        assert not self.broken
        return self.fleet.snapshot(self.now)

    def tick(self) -> None:
        self.now += FIRST_STEP_SECONDS
        self.history.add(self.fleet.snapshot(self.now), self.now)

    def report(self, nodename: str, *, rss: int = 50 * MIB, **changes: Any) -> None:
        """The agent's next report; of a worker that leaks, unless ``changes`` say otherwise."""
        number = sum(nodename.encode())
        report = samples.report(
            worker=nodename,
            instance=samples.instance(boot_id="elsewhere", started_at=float(number)),
            sequence=round(self.now / FIRST_STEP_SECONDS) + 1,
            processes=[samples.process("main", 100), samples.process("0", 101, rss_bytes=rss)],
        )
        self.fleet.apply_report(dataclasses.replace(report, **changes), self.now)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    site.server.start()
    yield site
    site.server.stop()


def fine(name: str = "shop.fine") -> Any:
    return samples.task(
        name, growth_bytes=0.0, release_bytes=0.0, evidence=evidence_of(lambda _: 0.0)
    )


def accessible(visit: Visit) -> list[str]:
    """What axe-core finds against WCAG 2.2 A and AA and its best practices; contrast of what is
    shown among it."""
    results = Axe().run(visit.page)
    return [
        f"{each['id']}: {[node['html'][:150] for node in each['nodes']]}"
        for each in results.response["violations"]
    ]


@pytest.mark.timeout(300)
def test_a_leaking_worker(stage: Stage, open_page: Open) -> None:
    config = stage.folder / "config.yaml"
    config.write_text(
        "processes: {enabled: false}"
    )  # other workers of this machine would be on the picture
    exporter = stage.exporter("--config", str(config))
    worker = stage.worker("-c", "2")
    visit = open_page(f"http://127.0.0.1:{exporter.port}/")
    headline = visit.page.locator("#headline")
    expect(headline).to_have_text("Nothing leaks in 1 worker")
    expect(visit.page.locator("#no-suspects")).to_contain_text("No verdict yet")
    stage.send(worker, "noop", times=300)
    suspect = visit.page.get_by_role("article").filter(has_text="tests.integration.tasks.leak")

    def look() -> bool:
        diagnosis = json.loads(exporter.text_of("/api/v1/diagnosis"))
        leaks = [
            each for each in diagnosis["suspects"] if each["task"] == "tests.integration.tasks.leak"
        ]
        if not leaks or not leaks[0]["holders"] or not leaks[0]["sites"]:
            stage.send(worker, "leak", 1, times=50)
            return False
        return True

    wait_for(look, "the leak with its holder and line", patience=4 * PATIENCE)
    stage.send(worker, "leak", 1, times=3_000)  # more than there are of anything else that grew
    expect(headline).to_have_text("1 leak in 1 of 1 worker")
    expect(suspect).to_contain_text("a run")
    for part in (
        worker.nodename,
        "tests.integration.tasks.MyCacheEntry",
        "tests.integration.tasks.CACHE",
        "tests/integration/tasks.py:",
    ):
        expect(suspect).to_contain_text(part)
    expect(visit.row(worker.nodename)).to_contain_text("leaking")
    expect(
        visit.row(worker.nodename).get_by_role(
            "img", name=re.compile("RSS in the past .*: from .* MiB to .* MiB")
        )
    ).to_be_visible()
    visit.row(worker.nodename).get_by_role("button").click()
    for part in ("child 0", "child 1", str(worker.pid), "tests.integration.tasks.MyCacheEntry"):
        expect(visit.row(worker.nodename)).to_contain_text(part)
    expect(visit.row(worker.nodename).locator(".c-age")).to_have_text(re.compile(r"\d s ago"))
    expect(visit.page.locator("#queues")).to_contain_text(worker.queue)
    expect(visit.page.locator("#cleared-section")).to_contain_text("1 task type")
    for scheme in ("dark", "light"):
        visit.page.emulate_media(color_scheme=scheme)
        assert accessible(visit) == []
        visit.screenshot(scheme)
    visit.page.set_viewport_size(PHONE)
    visit.screenshot("narrow")


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


@pytest.fixture(scope="module")
def page_of_nothing(browser: Browser) -> Iterator[Page]:
    site = Site()
    site.server.start()
    page = browser.new_page()
    page.goto(site.url)
    yield page
    page.close()
    site.server.stop()
