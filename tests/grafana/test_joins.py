"""The dashboards' queries where the same nodename is in several clusters and at several brokers, by
promtool."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from celery_memory_exporter.metrics.catalogue import BY_NAME
from celery_memory_exporter.metrics.families.family import Family
from tests.grafana import linter
from tests.grafana.committed import Json
from tests.integration.programs import need

#: The same nodename in two clusters, and at two brokers of one exporter.
PLACES = (
    {"cluster": "a", "broker": "eu"},
    {"cluster": "a", "broker": "us"},
    {"cluster": "b", "broker": "eu"},
)
#: Members of a group have several holders.
VALUES = {
    "process": ("main", "0", "1"),
    "holder": ("", "shop._cache"),
    "object_type": ("dict", "list"),
    "site": ("a.py:1", "b.py:2"),
    "reason": ("memory", "oom"),
}


def samples_of(family: Family) -> list[tuple[str, dict[str, str]]]:
    """Name and further labels of each of its samples."""
    buckets = (
        [(f"{family.name}_bucket", {"le": bound}) for bound in ("1", "+Inf")]
        if family.kind == "histogram"
        else []
    )
    plain = (
        [f"{family.name}_sum", f"{family.name}_count"]
        if family.kind in ("histogram", "summary")
        else [family.name]
    )
    return [*buckets, *((name, {}) for name in plain)]


def alike_in_several_places() -> list[str]:
    """Series of every family that differ by where they come from."""
    found = []
    for family, place in itertools.product(BY_NAME.values(), PLACES):
        where = {
            key: value
            for key, value in place.items()
            if key == "cluster" or not family.name.startswith("celery_memory_")
        }
        for values in itertools.product(*(VALUES.get(label, ("x",)) for label in family.labels)):
            labels = {
                "job": "celery",
                "instance": "e:9808",
                **where,
                **dict(zip(family.labels, values, strict=True)),
            }
            for name, more in samples_of(family):
                found.append(
                    name
                    + "{"
                    + ",".join(f'{key}="{value}"' for key, value in {**labels, **more}.items())
                    + "}"
                )
    return list(dict.fromkeys(found))


def filled(expression: str) -> str:
    """With everything chosen."""
    times = {"$__rate_interval": "2m", "$__range": "5m"}
    return re.sub(r"\$\w+", lambda match: times.get(match[0], ".*"), expression)


@pytest.mark.integration
def test_queries_join_what_belongs_together_where_targets_have_more_labels(
    dashboard: Json, tmp_path: Path
) -> None:
    # Whatever a query answers, if it is no error.
    whatever = {"eval_time": "10m", "exp_samples": [{"labels": "{}", "value": 0}]}
    asked = [
        {"expr": f"count({filled(expression)}) * 0 or vector(0)", **whatever}
        for _, expression in linter.targets(dashboard)
    ]
    series = [{"series": each, "values": "1+1x20"} for each in alike_in_several_places()]
    test = tmp_path / "test.yaml"
    test.write_text(
        yaml.safe_dump(
            {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]}
        )
    )
    done = subprocess.run(
        [need("promtool"), "test", "rules", str(test)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
