"""Each alert says all that its reader needs, and asks for metrics and labels that exist."""

from __future__ import annotations

import re

import pytest
import yaml

from grafana.generate import alerts
from grafana.generate.__main__ import GRAFANA_URL, RUNBOOK_URL
from grafana.generate.promql import RECORDED
from grafana.generate.thresholds import OF_ALERT
from tests.grafana.committed import (
    ALERT_NAMES,
    ALERT_RULES,
    DASHBOARDS,
    FOREIGN,
    LABELS,
    family_of,
    rules_of,
)
from tests.grafana.linter import metrics

SEVERITIES = {"critical", "warning", "info"}
EXPRESSIONS = [rule["expr"] for rule in ALERT_RULES] + list(RECORDED.values())


def test_each_alert_has_thresholds_and_each_with_thresholds_is_there() -> None:
    assert {alert.name for alert in alerts.ALERTS} == {*OF_ALERT}


@pytest.mark.parametrize("name", ALERT_NAMES)
def test_an_alert_says_all_that_its_reader_needs(name: str) -> None:
    assert rules_of(name)
    for rule in rules_of(name):
        annotations = rule["annotations"]
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in SEVERITIES
        assert annotations.keys() == {"summary", "description", "runbook_url", "dashboard_url"}
        assert re.fullmatch(r"[A-Z][^{}]+\.", annotations["summary"])
        assert "{{" in annotations["description"]
        assert annotations["runbook_url"] == f"{RUNBOOK_URL}/{name}.md"
        dashboard = re.match(rf"{GRAFANA_URL}/d/([\w-]+)\?var-job=", annotations["dashboard_url"])
        assert dashboard is not None
        assert dashboard[1] in {path.stem for path in DASHBOARDS}


def test_no_alert_waits_until_the_exporter_has_forgotten_the_worker() -> None:
    assert all(int(rule.get("for", "0m").removesuffix("m")) * 60 < 600 for rule in ALERT_RULES)
    assert all(rule["for"] == "1m" for rule in rules_of("CeleryTaskLeak"))


def test_every_metric_of_the_rules_exists() -> None:
    found = {name for expression in EXPRESSIONS for name in metrics(expression)}
    known = {*RECORDED, *FOREIGN}
    assert {name for name in found - known if family_of(name) is None} == set()
    assert set(RECORDED) <= found, "recorded, and of no use"
    assert len(found) > 20


def test_labels_that_rules_aggregate_or_join_by_are_labels() -> None:
    for expression in EXPRESSIONS:
        for listed in re.findall(r"\b(?:by|without|on|ignoring) \(([^)]*)\)", expression):
            assert {*listed.split(", ")} <= LABELS, expression


def test_the_holders_of_a_suspect_are_asked_for_by_all_its_other_labels() -> None:
    asked = re.search(r"celery_leak_suspect\{(.*?)\}\" (.*?) \|", alerts.HELD)
    assert asked is not None
    labels = asked[1].replace("=%q", "").split(",")
    assert asked[2].split() == [f"$labels.{each}" for each in labels]
    suspect = family_of("celery_leak_suspect")
    assert suspect is not None
    assert {*suspect.labels} - {"holder"} <= {*labels}


def test_a_rule_file_is_written_under_a_header_and_reads_as_what_it_was() -> None:
    for content in alerts.rule_files(GRAFANA_URL, RUNBOOK_URL).values():
        written = alerts.to_yaml(content)
        assert written.startswith(alerts.HEADER)
        assert yaml.safe_load(written) == content
