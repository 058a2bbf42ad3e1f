"""The 17 rules of Grafana's dashboard-linter, in its own names, written after its documentation;
without exclusions.

Each rule yields what is wrong with a dashboard. Its binary is not to be had from a package
registry. PromQL is parsed by ``promql_parser``, with the variables filled in as the linter does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import promql_parser as promql

Json = dict[str, Any]
Rule = Callable[[Json], Iterator[str]]

#: Of Grafana's unit list, those that are used here.
UNITS = {"none", "short", "bytes", "Bps", "s", "percentunit", "ops", "cps"}
WITH_DATA_SOURCE = {"singlestat", "graph", "table", "timeseries"}
WITH_QUERIES = {"stat", "singlestat", "graph", "table", "timeseries", "gauge"}
WITH_TARGETS = {*WITH_QUERIES, "state-timeline", "heatmap", "bargauge"}
DATA_SOURCES = {
    "$datasource",
    "${datasource}",
    "$prometheus_datasource",
    "${prometheus_datasource}",
}
VARIABLES = {"$__rate_interval": "5m", "$__range": "3h", "$__interval": "1m"}
QUERY = re.compile(r"(label_names|label_values|metrics|query_result)\((.+)\)")


def panels(dashboard: Json) -> list[Json]:
    """Without rows' headings."""
    return [each for each in dashboard["panels"] if each["type"] != "row"]


def parsed(expression: str) -> promql.Expr:
    """Raises ``ValueError`` for what is no PromQL."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return promql.parse(expression)


def selectors(expression: str) -> list[promql.VectorSelector]:
    found: list[promql.VectorSelector] = []

    def visit(node: promql.Expr) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.append(node)
        return True

    promql.walk(parsed(expression), visit)
    return found


def metrics(expression: str) -> set[str]:
    """Raises ``ValueError`` for what is no PromQL."""
    return {str(selector.name) for selector in selectors(expression)}


def targets(dashboard: Json, kinds: set[str] = WITH_TARGETS) -> Iterator[tuple[str, str]]:
    """Panel and expression."""
    for panel in panels(dashboard):
        if panel["type"] in kinds:
            for target in panel["targets"]:
                yield panel["title"], target["expr"]


def variables(dashboard: Json, kind: str) -> dict[str, Json]:
    return {each["name"]: each for each in dashboard["templating"]["list"] if each["type"] == kind}


def template_datasource(dashboard: Json) -> Iterator[str]:
    sources = variables(dashboard, "datasource")
    if len(sources) != 1 or "datasource" not in sources:
        yield "one variable named datasource is to choose the data source"
    elif sources["datasource"]["label"] != "Data source":
        yield "the variable datasource is labelled 'Data source'"


def _target_variable(dashboard: Json, name: str) -> Iterator[str]:
    found = variables(dashboard, "query").get(name)
    if found is None:
        yield f"no variable {name}"
        return
    if found["datasource"]["uid"] not in DATA_SOURCES:
        yield f"{name} does not ask the chosen data source"
    if found["label"] != name.capitalize():
        yield f"{name} is labelled {found['label']!r}"
    if not found["multi"]:
        yield f"{name} takes one value only"
    if found.get("allValue") != ".+":
        yield f"all of {name} is not .+"


def template_job(dashboard: Json) -> Iterator[str]:
    return _target_variable(dashboard, "job")


def template_instance(dashboard: Json) -> Iterator[str]:
    return _target_variable(dashboard, "instance")


def template_label_promql(dashboard: Json) -> Iterator[str]:
    for name, variable in variables(dashboard, "query").items():
        match = QUERY.fullmatch(variable["query"])
        if not match:
            yield f"{name} has no query of a known function"
            continue
        argument = match[2].rpartition(",")[0] if match[1] == "label_values" else match[2]
        try:
            parsed(argument)
        except ValueError as error:
            yield f"{name}: {error}"


def template_on_time_change_reload(dashboard: Json) -> Iterator[str]:
    for name, variable in variables(dashboard, "query").items():
        if variable["refresh"] != 2:
            yield f"{name} is not asked again when the time range changes"


def panel_datasource(dashboard: Json) -> Iterator[str]:
    for panel in panels(dashboard):
        if panel["type"] in WITH_DATA_SOURCE and panel["datasource"]["uid"] not in DATA_SOURCES:
            yield f"{panel['title']} does not ask the chosen data source"


def panel_title_description(dashboard: Json) -> Iterator[str]:
    for panel in panels(dashboard):
        if not panel.get("title") or not panel.get("description"):
            yield f"panel {panel['id']} has no title or no description"


def panel_units(dashboard: Json) -> Iterator[str]:
    for panel in panels(dashboard):
        config = panel["fieldConfig"]
        units = [config["defaults"].get("unit")]
        units += [
            each["value"]
            for override in config["overrides"]
            for each in override["properties"]
            if each["id"] == "unit"
        ]
        for unit in units:
            if unit not in UNITS:
                yield f"{panel['title']} has the unit {unit!r}"


def panel_no_targets(dashboard: Json) -> Iterator[str]:
    for panel in panels(dashboard):
        if not panel.get("targets"):
            yield f"{panel['title']} asks nothing"


def target_logql(dashboard: Json) -> Iterator[str]:
    """This and the next are about Loki: no panel may have a query to it."""
    for panel in panels(dashboard):
        if any(each["datasource"]["type"] != "prometheus" for each in [panel, *panel["targets"]]):
            yield f"{panel['title']} asks something else than Prometheus"


def target_logql_auto(dashboard: Json) -> Iterator[str]:
    for title, expression in targets(dashboard):
        if "$__auto" in expression:
            yield f"{title} uses $__auto, which is LogQL's"


def target_promql(dashboard: Json) -> Iterator[str]:
    for title, expression in targets(dashboard):
        try:
            parsed(expression)
        except ValueError as error:
            yield f"{title}: {error}"


def target_rate_interval(dashboard: Json) -> Iterator[str]:
    for title, expression in targets(dashboard):
        for function, over in re.findall(r"\b(i?rate)\([^\[\]]*\[([^\]]*)\]", expression):
            if over != "$__rate_interval":
                yield f"{title} has {function} over {over}"


def _target_matcher(dashboard: Json, name: str) -> Iterator[str]:
    for title, expression in targets(dashboard):
        for selector in selectors(expression):
            matchers = [
                (str(each.op), each.value)
                for each in selector.matchers.matchers
                if each.name == name
            ]
            if matchers != [("MatchOp.Re", f"${name}")]:
                yield f'{title}: {selector.name} has not {name}=~"${name}"'


def target_job(dashboard: Json) -> Iterator[str]:
    return _target_matcher(dashboard, "job")


def target_instance(dashboard: Json) -> Iterator[str]:
    return _target_matcher(dashboard, "instance")


def target_counter_agg(dashboard: Json) -> Iterator[str]:
    """Stricter than the linter, which looks only at selectors without matchers."""
    counting = re.compile(r"(?:rate|increase)\(\s*$")
    for title, expression in targets(dashboard):
        for match in re.finditer(r"\bcelery_\w+_total\b", expression):
            bare = not counting.search(expression[: match.start()])
            if bare and match[0] not in SHOWN_AS_THEY_ARE:
                yield f"{title} shows the counter {match[0]} as it is"


#: Counters whose total is what is asked for: since the start, or of a series that began meanwhile
#: (see ``risen``).
SHOWN_AS_THEY_ARE = {
    "celery_memory_exporter_series_dropped_total",
    "celery_task_lost_total",
    "celery_task_failed_total",
    "celery_task_retried_total",
    "celery_agent_overhead_seconds_total",
}


def uneditable_dashboard(dashboard: Json) -> Iterator[str]:
    if dashboard["editable"]:
        yield "it can be edited"


RULES: tuple[Rule, ...] = (
    template_datasource,
    template_job,
    template_instance,
    template_label_promql,
    template_on_time_change_reload,
    panel_datasource,
    panel_title_description,
    panel_units,
    panel_no_targets,
    target_logql,
    target_logql_auto,
    target_promql,
    target_rate_interval,
    target_job,
    target_instance,
    target_counter_agg,
    uneditable_dashboard,
)
