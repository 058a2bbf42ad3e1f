"""Every query of every dashboard, alert and recording rule has data on a real Prometheus that
scraped a busy, leaking shop."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.grafana import linter
from tests.integration.programs import ROOT
from tests.integration.waiting import nothing, wait_for
from tests.scene.scene import JOB, SCRAPE_SECONDS, Scene

pytestmark = pytest.mark.integration
Json = dict[str, Any]
DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((ROOT / "grafana" / "rules").glob("*.yaml"))
#: What a panel shows.
SHOWN_SECONDS = 180
#: One worker's dashboard is looked at for the one that has all: an agent, recycling, and a limit
#: where it can have one.
WORKER = "celery@media-1"
EVERY = {
    "cluster": ".*",
    "namespace": ".*",
    "instance": ".+",
    "job": JOB,
    "worker": ".+",
    "task": ".+",
    "queue": ".+",
}
#: Has data only where the test may make a cgroup with a limit.
OF_A_CGROUP = "celery_worker_cgroup_"
#: What a healthy exporter has not: nothing is beyond its caps.
NOT_HERE = ("celery_memory_exporter_series_dropped_total",)


def substituted(expression: str, **chosen: str) -> str:
    """As Grafana does it."""
    values = {"__rate_interval": f"{4 * SCRAPE_SECONDS}s", "__range": "2m", **EVERY, **chosen}
    for name in sorted(values, key=len, reverse=True):
        expression = expression.replace(f"${name}", values[name])
    assert "$" not in expression
    return expression


def wait_for_data(scene: Scene, expressions: dict[str, str]) -> None:
    """Of each, by what it is of. What comes seldom (a child that is recycled) may be gone from the
    panel when the next one comes."""
    missing = dict(expressions)

    def look() -> dict[str, str]:
        end = time.time()
        ends = {"start": end - SHOWN_SECONDS, "end": end, "step": SCRAPE_SECONDS}
        for of, each in list(missing.items()):
            if scene.prometheus.ask("query_range", query=each, **ends)["result"]:
                del missing[of]
        return missing

    wait_for(look, "data of all queries", nothing)


def may_be_asked(scene: Scene, expression: str) -> bool:
    return not any(
        name in expression for name in [*NOT_HERE, *([] if scene.cgroup else [OF_A_CGROUP])]
    )


def of_panels(dashboard: Json) -> Iterator[tuple[str, str]]:
    one_worker = not linter.variables(dashboard, "query")["worker"]["multi"]
    chosen = {"worker": WORKER} if one_worker else {}
    for panel in linter.panels(dashboard):
        for target in panel["targets"]:
            yield (
                f"{dashboard['title']}, {panel['title']}, {target['refId']}",
                substituted(target["expr"], **chosen),
            )


def of_rules() -> Iterator[tuple[str, str]]:
    """An alert that does not fire has no data, what it looks at has."""
    for path in RULES:
        for rule in (
            rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
        ):
            for selector in linter.selectors(rule["expr"]):
                yield f"{rule.get('alert') or rule['record']}, {selector.name}", str(selector.name)


def empty_variables(scene: Scene, dashboard: Json) -> list[str]:
    """Those that have nothing to choose from."""
    found = []
    for name, variable in linter.variables(dashboard, "query").items():
        match = linter.QUERY.fullmatch(variable["query"])
        assert match
        series, _, label = match[2].rpartition(",")
        if not scene.prometheus.ask(
            f"label/{label.strip()}/values", **{"match[]": substituted(series)}
        ):
            found.append(name)
    return found


# One test, because a scene is much for the machine, and tests are spread over processes.
def test_every_query_has_data(tmp_path: Path) -> None:
    dashboards = [json.loads(path.read_text()) for path in DASHBOARDS]
    with Scene(tmp_path) as scene:
        scene.wait_until_told()
        asked = dict(
            [*(each for dashboard in dashboards for each in of_panels(dashboard)), *of_rules()]
        )
        wait_for_data(scene, {of: each for of, each in asked.items() if may_be_asked(scene, each)})
        for dashboard in dashboards:
            assert empty_variables(scene, dashboard) == ["cluster"], dashboard["title"]
