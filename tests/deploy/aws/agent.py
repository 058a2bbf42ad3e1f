"""What the CloudWatch agent makes of a scrape, by the rules of its Prometheus input and of its EMF
exporter.

The agent is no Python and needs an account, so these rules stand for it: a sample's labels and the
target's, less the empty ones, are relabelled; gauges go as they are, counters as the difference
since the scrape before, histograms and values that are no numbers not at all; each declaration
whose matcher and selector fit gives one metric for each of its dimension sets that the labels hold
whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


class CloudWatchAgent:
    """One target's scrapes, in the agent's and in Prometheus' configuration; ``target`` is the
    labels that discovery gives."""

    def __init__(
        self, config: dict[str, Any], scrape: dict[str, Any], target: Mapping[str, str]
    ) -> None:
        self._declarations = config["logs"]["metrics_collected"]["prometheus"]["emf_processor"][
            "metric_declaration"
        ]
        (job,) = scrape["scrape_configs"]
        self._rules = job["metric_relabel_configs"]
        self._target = target
        self._counters: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def scrape(self, exposition: str, time: datetime) -> list[dict[str, Any]]:
        """``MetricData`` for CloudWatch's ``PutMetricData``."""
        return [
            {
                "MetricName": name,
                "Dimensions": [{"Name": each, "Value": labels[each]} for each in dimensions],
                "Value": value,
                "Timestamp": time,
            }
            for name, labels, value in self._samples(exposition)
            for dimensions in self._dimension_sets(name, labels)
        ]

    def _samples(self, exposition: str) -> Iterator[tuple[str, dict[str, str], float]]:
        for family in text_string_to_metric_families(exposition):
            if family.type not in ("gauge", "counter"):
                continue
            for sample in family.samples:
                labels = relabelled({**sample.labels, **self._target}, self._rules)
                value = sample.value
                if family.type == "counter":
                    value = self._difference(sample.name, labels, value)
                if math.isfinite(value):
                    yield sample.name, labels, value

    def _difference(self, name: str, labels: Mapping[str, str], value: float) -> float:
        """No number at a counter's first scrape."""
        key = name, frozenset(labels.items())
        before = self._counters.get(key, math.nan)
        self._counters[key] = value
        return value if value < before else value - before

    def _dimension_sets(self, name: str, labels: Mapping[str, str]) -> list[tuple[str, ...]]:
        sets = (
            tuple(dimensions)
            for declaration in self._declarations
            if declares(declaration, name) and matches(declaration, labels)
            for dimensions in declaration["dimensions"]
            if labels.keys() >= set(dimensions)
        )
        return list(dict.fromkeys(sets))


def declares(declaration: Mapping[str, Any], name: str) -> bool:
    """Whether a selector fits; Go's regular expressions match anywhere."""
    return any(re.search(selector, name) for selector in declaration.get("metric_selectors", []))


def matches(declaration: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether the matcher fits the source labels' values; a declaration without source labels is
    skipped."""
    source = declaration.get("source_labels", [])
    values = declaration.get("label_separator", ";").join(labels.get(each, "") for each in source)
    return bool(source) and re.search(declaration.get("label_matcher", ".*"), values) is not None


def relabelled(labels: Mapping[str, str], rules: list[dict[str, Any]]) -> dict[str, str]:
    """By rules of Prometheus' default action (``replace``), whose regular expression matches the
    whole value."""
    result = dict(labels)
    for rule in rules:
        found = re.fullmatch(
            rule["regex"], ";".join(result.get(each, "") for each in rule["source_labels"])
        )
        if found:
            result[rule["target_label"]] = found[1]
    return {name: value for name, value in result.items() if value}
