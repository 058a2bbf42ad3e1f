"""An alert as Prometheus' rule file has it."""

from __future__ import annotations

import dataclasses
from urllib.parse import parse_qsl

import pytest
import yaml

from grafana.generate.rule_file import TASK, Alert, dump, query, rule
from grafana.generate.thresholds import Threshold

ALERT = Alert("It", "info", "up == 0", "It is.", "{{ $labels.job }} is.", TASK)


def test_times_that_an_alert_has_not_are_left_out() -> None:
    short = rule(dataclasses.replace(ALERT, hold=None, keep=None), "http://g", "http://r")
    assert not {"for", "keep_firing_for"} & short.keys()
    times = {"hold": Threshold("3m", "", ""), "keep": Threshold("7m", "", "")}
    written = rule(dataclasses.replace(ALERT, **times), "http://g", "http://r")
    assert (written["for"], written["keep_firing_for"]) == ("3m", "7m")


def test_an_alert_links_to_its_runbook_and_its_dashboard() -> None:
    annotations = rule(ALERT, "http://g", "http://r/books")["annotations"]
    assert annotations["runbook_url"] == "http://r/books/It.md"
    assert annotations["dashboard_url"].startswith("http://g/d/celery-memory-task?var-job=")


def filled(text: str, **labels: str) -> str:
    """What Prometheus makes of a template that has only ``with`` and labels."""
    parts = text.split("{{ with ")
    done = parts[0].replace("{{ $labels.job | urlquery }}", labels["job"])
    for part in parts[1:]:
        condition, _, rest = part.partition(" }}")
        inside, _, after = rest.partition("{{ end }}")
        value = labels.get(condition.removeprefix("$labels."))
        done += (inside.replace("{{ . | urlquery }}", value) if value else "") + after
    return done


@pytest.mark.parametrize(
    ("labels", "variables"),
    [
        ({}, {}),
        ({"worker": "w"}, {"var-worker": "w"}),
        (
            {"worker": "w", "name": "shop.leak", "queue_name": "q"},
            {"var-worker": "w", "var-task": "shop.leak", "var-queue": "q"},
        ),
    ],
)
def test_the_dashboards_variables_are_the_labels_that_the_alert_has(
    labels: dict[str, str], variables: dict[str, str]
) -> None:
    text = filled(query(("worker", "task", "queue")), job="celery", **labels)
    assert dict(parse_qsl(text, strict_parsing=True)) == {"var-job": "celery", **variables}


def test_promql_keeps_its_lines_and_long_texts_are_folded() -> None:
    content = {"expr": "a\nand\n  b", "text": "word " * 60 + "end", "short": "one line"}
    written = dump(content)
    assert "expr: |-\n  a\n  and\n    b\n" in written
    assert "text: >-\n" in written
    assert max(map(len, written.splitlines())) < len(content["text"]) / 2
    assert "short: one line\n" in written
    assert yaml.safe_load(written) == content
