"""An alert, and how it and its file are written for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from grafana.generate import thresholds
from grafana.generate.thresholds import Threshold

FLEET, WORKER, TASK, QUEUES, EXPORTER = (
    f"celery-memory-{name}" for name in ("fleet", "worker", "task", "queues", "exporter")
)
#: Variables of a dashboard whose label is called otherwise.
LABELS = {"task": "name", "queue": "queue_name"}
LONG_TEXT = 100


@dataclass(frozen=True, slots=True)
class Alert:
    """``severity``: critical (somebody has to act now), warning (a ticket), info (to be seen, not
    sent).

    ``summary`` is a sentence without figures, ``description`` a template: what, where, how much,
    what next. ``dashboard`` is the uid of the one to open, with these ``variables`` beside the
    target's.
    """

    name: str
    severity: str
    expr: str
    summary: str
    description: str
    dashboard: str
    variables: tuple[str, ...] = ("worker",)
    hold: Threshold | None = thresholds.STATE_FOR
    keep: Threshold | None = thresholds.KEEP_FIRING


def rule(alert: Alert, grafana_url: str, runbook_url: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        **({"for": str(alert.hold)} if alert.hold else {}),
        **({"keep_firing_for": str(alert.keep)} if alert.keep else {}),
        "labels": {"severity": alert.severity},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{runbook_url}/{alert.name}.md",
            "dashboard_url": f"{grafana_url}/d/{alert.dashboard}?"
            + query(("instance", "cluster", "namespace", *alert.variables)),
        },
    }


def query(variables: tuple[str, ...]) -> str:
    """Sets the dashboard's job, and the variables whose label the alert has: an empty one would
    select nothing."""
    labels = [(each, LABELS.get(each, each)) for each in variables]
    others = [
        f"{{{{ with $labels.{label} }}}}&var-{each}={{{{ . | urlquery }}}}{{{{ end }}}}"
        for each, label in labels
    ]
    return "var-job={{ $labels.job | urlquery }}" + "".join(others)


class Dumper(yaml.SafeDumper):
    """PromQL as it is laid out, long texts folded: as they are read best."""


def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else ">" if len(text) > LONG_TEXT else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, represent_text)


def dump(rule_file: dict[str, Any]) -> str:
    return yaml.dump(rule_file, Dumper=Dumper, sort_keys=False, width=132, allow_unicode=True)
