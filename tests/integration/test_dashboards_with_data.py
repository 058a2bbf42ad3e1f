"""Every query of every dashboard, alert and recording rule has data on a real Prometheus that scraped a busy, leaking shop."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import dashboard_linter as linter
from tests.integration.conftest import ROOT, wait_for
from tests.scene.scene import JOB, SCRAPE_SECONDS, Scene

pytestmark = [pytest.mark.integration, pytest.mark.timeout(480), pytest.mark.xdist_group("scene")]
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((ROOT / "grafana" / "rules").glob("*.yaml"))
#: For what comes seldom (a child that is recycled) to have come.
PATIENCE = 150
#: What a panel shows.
SHOWN_SECONDS = 180
#: One worker's dashboard is looked at for the one that has all: an agent, recycling, and a limit where it can have one.
WORKER = "celery@media-1"
EVERY = {"cluster": ".*", "namespace": ".*", "instance": ".+", "job": JOB, "worker": ".+", "task": ".+", "queue": ".+"}
#: Has data only where the test may make a cgroup with a limit.
OF_A_CGROUP = "celery_worker_cgroup_"
#: What a healthy exporter has not: nothing is beyond its caps.
NOT_HERE = ("celery_memory_exporter_series_dropped_total",)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with Scene(tmp_path_factory.mktemp("scene")) as scene:
        scene.wait_until_told()
        yield scene


def substituted(expression: str, **chosen: str) -> str:
    """As Grafana does it."""
    values = {"__rate_interval": f"{4 * SCRAPE_SECONDS}s", "__range": "2m", **EVERY, **chosen}
    for name in sorted(values, key=len, reverse=True):
        expression = expression.replace(f"${name}", values[name])
    assert "$" not in expression
    return expression


def without_data(scene: Scene, expressions: dict[str, str]) -> list[str]:
    """Those that have none even after a while; by what they are of."""

    def missing() -> dict[str, str]:
        end = time.time()
        ends = {"start": end - SHOWN_SECONDS, "end": end, "step": SCRAPE_SECONDS}
        return {
            of: each for of, each in expressions.items() if not scene.prometheus.ask("query_range", query=each, **ends)["result"]
        }

    try:
        wait_for(lambda: not missing(), "data of all", PATIENCE)
    except AssertionError:
        return [f"{of}: {expression}" for of, expression in missing().items()]
    return []


def may_be_asked(scene: Scene, expression: str) -> bool:
    return not any(name in expression for name in [*NOT_HERE, *([] if scene.cgroup else [OF_A_CGROUP])])


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_every_panel_has_data(scene: Scene, path: Path) -> None:
    dashboard = json.loads(path.read_text())
    one_worker = not linter.variables(dashboard, "query")["worker"]["multi"]
    chosen = {"worker": WORKER} if one_worker else {}
    asked = {
        f"{panel['title']} {target['refId']}": expression
        for panel in linter.panels(dashboard)
        for target in panel["targets"]
        if may_be_asked(scene, expression := substituted(target["expr"], **chosen))
    }
    assert without_data(scene, asked) == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_every_variable_has_something_to_choose(scene: Scene, path: Path) -> None:
    for name, variable in linter.variables(json.loads(path.read_text()), "query").items():
        match = linter.QUERY.fullmatch(variable["query"])
        assert match
        series, _, label = match[2].rpartition(",")
        found = scene.prometheus.ask(f"label/{label.strip()}/values", **{"match[]": substituted(series)})
        assert found or name == "cluster", name


def rules() -> Iterator[Any]:
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield pytest.param(rule["expr"], id=rule.get("alert") or rule["record"])


@pytest.mark.parametrize("expression", rules())
def test_what_every_rule_looks_at_has_data(scene: Scene, expression: str) -> None:
    asked = {str(each.name): str(each.name) for each in linter.selectors(expression) if may_be_asked(scene, str(each.name))}
    assert without_data(scene, asked) == []
