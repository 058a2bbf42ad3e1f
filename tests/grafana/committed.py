"""What ``grafana/`` holds as it is committed, and what the metrics catalogue says of the samples in
its queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from celery_memory_exporter.metrics.catalogue import BY_NAME
from celery_memory_exporter.metrics.families.family import Family
from grafana.generate.alerts import ALERTS_FILE

Json = dict[str, Any]
ROOT = Path(__file__).parent.parent.parent
GRAFANA = ROOT / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
RULES = sorted((GRAFANA / "rules").glob("*.yaml"))
ALERT_RULES: list[Json] = [
    rule
    for group in yaml.safe_load((GRAFANA / "rules" / ALERTS_FILE).read_text())["groups"]
    for rule in group["rules"]
]
ALERT_NAMES = sorted({rule["alert"] for rule in ALERT_RULES})
#: Metrics of others that rules and runbooks ask for, each with who has it.
FOREIGN = {
    "up": "Prometheus",
    "kube_pod_container_status_last_terminated_reason": "kube-state-metrics",
}
#: What a label of a sample may be beside its family's own: what Prometheus and service discovery
#: put on all of a target's.
TARGET_LABELS = {"job", "instance", "cluster", "namespace", "broker"}
LABELS = {label for family in BY_NAME.values() for label in family.labels} | TARGET_LABELS


def family_of(sample: str) -> Family | None:
    """``None``: it is not one of ours."""
    names = (sample.removesuffix(each) for each in ("", "_bucket", "_sum", "_count"))
    return next((BY_NAME[name] for name in names if name in BY_NAME), None)


def rules_of(alert: str) -> list[Json]:
    """An alert may have one for each severity."""
    return [rule for rule in ALERT_RULES if rule["alert"] == alert]
