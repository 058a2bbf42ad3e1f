"""``python -m grafana.generate``: what is committed is what it writes, and the addresses are those
that it is given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from grafana.generate import __main__ as program
from tests.grafana.committed import DASHBOARDS, GRAFANA, RULES


def test_what_is_committed_is_what_is_generated() -> None:
    expected = program.files()
    assert {f"{path.parent.name}/{path.name}" for path in [*DASHBOARDS, *RULES]} == set(expected)
    for path, content in expected.items():
        assert (GRAFANA / path).read_text() == content, f"{path}: run `make grafana`"


def test_each_file_is_written_with_the_addresses_that_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--grafana-url", "https://g.shop/", "--runbook-url", "https://r.shop/books/"]
    monkeypatch.setattr("sys.argv", ["generate", *given, "--output", str(tmp_path)])
    program.main()
    written = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert sorted(capsys.readouterr().out.split()) == [str(path) for path in written]
    assert {str(path.relative_to(tmp_path)) for path in written} == set(program.files())
    rules = (tmp_path / "rules" / "celery-memory.alerts.yaml").read_text()
    assert "example.com" not in rules
    for group in yaml.safe_load(rules)["groups"]:
        for rule in group["rules"]:
            annotations = rule["annotations"]
            assert annotations["runbook_url"] == f"https://r.shop/books/{rule['alert']}.md"
            assert re.match(r"https://g\.shop/d/celery-memory-\w+\?", annotations["dashboard_url"])


def test_each_dashboard_is_a_file_under_its_own_uid() -> None:
    for path, content in program.files().items():
        if path.startswith("dashboards/"):
            assert json.loads(content)["uid"] == Path(path).stem
