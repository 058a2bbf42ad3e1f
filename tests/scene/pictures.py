"""``python -m tests.scene.pictures --exporter URL``: the page and the terminal report of a running
scene, for the README."""

from __future__ import annotations

import argparse
import html
import os
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.integration.programs import ROOT, need

#: A terminal's looks around a command and what it prints.
TERMINAL = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; padding: 20px 24px; background: #16181d; color: #d8dce4;
  font: 14px/1.45 "DejaVu Sans Mono", monospace; }}
pre {{ margin: 0; white-space: pre-wrap; }} b {{ color: #7fd18b; font-weight: normal; }}
</style><pre><b>$</b> {command}
{output}</pre>"""


def report(exporter: str) -> str:
    """What the command prints; its status is 1, since something leaks."""
    command = [sys.executable, "-m", "celery_memory_exporter.cli", "report", "--url", exporter]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def draw_report(page: Page, exporter: str, path: Path) -> None:
    shown = "celery-memory-exporter report --url http://exporter:9808"
    page.set_content(TERMINAL.format(command=shown, output=html.escape(report(exporter))))
    page.screenshot(path=path, full_page=True)


def draw_page(page: Page, exporter: str, path: Path) -> None:
    page.goto(exporter)
    page.get_by_text("shop.orders.price").first.wait_for()
    page.screenshot(path=path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scene.pictures", description=__doc__)
    parser.add_argument(
        "--exporter", required=True, metavar="URL", help="as `python -m tests.scene` prints it"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images", metavar="DIR")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    program = need("chromium", "chromium-browser", "google-chrome")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=sandbox)
        page = browser.new_page(viewport={"width": 1280, "height": 1000}, color_scheme="dark")
        draw_page(page, arguments.exporter, arguments.output / "page.png")
        draw_report(
            browser.new_page(viewport={"width": 1180, "height": 400}),
            arguments.exporter,
            arguments.output / "report.png",
        )
        browser.close()


if __name__ == "__main__":
    main()
