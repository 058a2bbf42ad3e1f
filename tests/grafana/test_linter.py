"""The linter sees what is broken."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.grafana import linter
from tests.grafana.committed import DASHBOARDS, Json


def panel_of(dashboard: Json, kind: str = "timeseries") -> Json:
    found: Json = next(each for each in dashboard["panels"] if each["type"] == kind)
    return found


def set_expr(dashboard: Json, expression: str) -> None:
    panel_of(dashboard)["targets"][0]["expr"] = expression


SELECTOR = '{job=~"$job",instance=~"$instance"}'
BROKEN: dict[str, Callable[[Json], Any]] = {
    "template_datasource": lambda each: each["templating"]["list"].pop(0),
    "template_job": lambda each: linter.variables(each, "query")["job"].update(multi=False),
    "template_instance": lambda each: linter.variables(each, "query")["instance"].update(
        allValue=".*"
    ),
    "template_label_promql": lambda each: linter.variables(each, "query")["job"].update(
        query="label_values(up{, job)"
    ),
    "template_on_time_change_reload": lambda each: linter.variables(each, "query")["job"].update(
        refresh=1
    ),
    "panel_datasource": lambda each: panel_of(each)["datasource"].update(uid="P1809F7CD0C75ACF3"),
    "panel_title_description": lambda each: panel_of(each).update(description=""),
    "panel_units": lambda each: panel_of(each)["fieldConfig"]["defaults"].update(unit="megabytes"),
    "panel_no_targets": lambda each: panel_of(each).update(targets=[]),
    "target_logql": lambda each: panel_of(each)["targets"][0].update(
        datasource={"type": "loki", "uid": "x"}
    ),
    "target_logql_auto": lambda each: set_expr(each, "rate(x[$__auto])"),
    "target_promql": lambda each: set_expr(each, f"sum(rate(x{SELECTOR}[5m])"),
    "target_rate_interval": lambda each: set_expr(each, f"rate(x{SELECTOR}[5m])"),
    "target_job": lambda each: set_expr(each, 'x{job="$job",instance=~"$instance"}'),
    "target_instance": lambda each: set_expr(each, 'x{job=~"$job"}'),
    "target_counter_agg": lambda each: set_expr(each, f"celery_task_started_total{SELECTOR}"),
    "uneditable_dashboard": lambda each: each.update(editable=True),
}


@pytest.mark.parametrize("rule", linter.RULES, ids=lambda rule: rule.__name__)
def test_the_linter_sees_what_is_broken(rule: linter.Rule) -> None:
    broken = copy.deepcopy(json.loads(DASHBOARDS[0].read_text()))
    BROKEN[rule.__name__](broken)
    assert len(list(rule(broken))) >= 1
