"""Each alert has a runbook, whose queries, links and panels are there."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest

from grafana.generate.promql import RECORDED
from tests.grafana.committed import ALERT_NAMES, DASHBOARDS, FOREIGN, ROOT, family_of
from tests.grafana.linter import metrics

RUNBOOKS = ROOT / "docs" / "runbooks"
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation", "Usual fixes"]


def test_each_alert_has_a_page_and_each_page_an_alert() -> None:
    assert {file.stem for file in RUNBOOKS.glob("*.md")} == {*ALERT_NAMES, "README"}


@pytest.mark.parametrize("name", ALERT_NAMES)
def test_its_runbook_has_all_parts(name: str) -> None:
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == HEADINGS


def queries(page: Path) -> list[str]:
    """Each begins at the left of its block and goes on in lines that do not."""
    blocks = re.findall(r"```promql\n(.+?)```", page.read_text(), re.DOTALL)
    return [
        query
        for block in blocks
        for query in re.split(r"\n(?=\w)", textwrap.dedent(f"{block.rstrip()}\n"))
        if query.strip()
    ]


def test_the_queries_of_the_runbooks_are_promql_of_metrics_that_exist() -> None:
    asked = [query for page in sorted(RUNBOOKS.glob("*.md")) for query in queries(page)]
    named = {name for query in asked for name in metrics(query)}
    assert {name for name in named - {*RECORDED, *FOREIGN} if family_of(name) is None} == set()
    assert len(asked) > 20


def test_runbooks_link_to_pages_and_panels_that_are_there() -> None:
    boards = [json.loads(file.read_text()) for file in DASHBOARDS]
    titles = {
        title for board in boards for title in re.findall(r'"title": "([^"]+)"', json.dumps(board))
    }
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text()
        assert all((RUNBOOKS / link).exists() for link in re.findall(r"\]\(([^)#]+)\)", text)), (
            page.name
        )
        named = {
            re.sub(r"\s+", " ", each)
            for each in re.findall(r"\*\*([^*.]+)\*\*", text.split("## Usual fixes")[0])
        }
        assert named <= titles, f"{page.name}: {named - titles}"
