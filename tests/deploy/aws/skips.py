"""What of a CloudWatch agent's configuration would silently come to nothing, or cost without
bound."""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from typing import Any

from celery_memory_exporter.metrics.catalogue import FAMILIES
from celery_memory_exporter.metrics.families.family import Family
from tests.deploy.aws.agent import declares

#: What discovery on ECS adds to a target's labels, and the agent itself (``ClusterName``).
ATTACHED = frozenset(
    {"job", "instance", "ClusterName", "TaskDefinitionFamily", "container_name", "ServiceName"}
)
#: Bounded by what an operator names (service, queue, source) or by ``limits.tasks_per_worker``.
BOUNDED = frozenset({"ClusterName", "service", "queue_name", "source", "name"})
UNITS = frozenset({"Bytes", "Count", "Seconds", "Percent"})


def labels_of(family: Family) -> Set[str]:
    """Those that its series have when the agent has relabelled them."""
    return {*family.labels, *ATTACHED, *({"service"} if "worker" in family.labels else ())}


def skips(emf: dict[str, Any], job: str) -> list[str]:
    """One line for each mistake in an ``emf_processor`` that scrapes a job of that name."""
    found = [
        line
        for declaration in emf["metric_declaration"]
        for line in _of_declaration(declaration, job)
    ]
    for name, unit in emf.get("metric_unit", {}).items():
        if not any(declares(declaration, name) for declaration in emf["metric_declaration"]):
            found.append(f"metric_unit: {name} is not declared")
        if unit not in UNITS:
            found.append(f"metric_unit: {unit} is no unit of CloudWatch")
    return found


def _of_declaration(declaration: dict[str, Any], job: str) -> Iterator[str]:
    for key in ("source_labels", "metric_selectors", "dimensions"):
        if not declaration.get(key):
            yield f"a declaration without {key} is skipped"
    if declaration.get("source_labels") == ["job"] and not re.search(
        declaration.get("label_matcher", ".*"), job
    ):
        yield f"label_matcher {declaration['label_matcher']} does not match the job {job}"
    for selector in declaration.get("metric_selectors", []):
        families = [family for family in FAMILIES if re.search(selector, family.name)]
        if not families:
            yield f"{selector} selects nothing"
        for family in families:
            yield from _of_family(family, declaration.get("dimensions", []))


def _of_family(family: Family, dimension_sets: list[list[str]]) -> Iterator[str]:
    if family.kind not in ("gauge", "counter"):
        yield f"{family.name} is a {family.kind}, which the agent drops or takes for something else"
    for dimensions in dimension_sets:
        for missing in sorted({*dimensions} - labels_of(family)):
            yield f"{family.name} has no label {missing}: the dimension set is skipped"
        for unbounded in sorted({*dimensions} - BOUNDED):
            yield f"{unbounded} has values without bound, and each is a metric to pay for"
