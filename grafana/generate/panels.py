"""What the dashboards are made of: queries and panels.

Classic schema, which Grafana 10 to 13 read alike. A selector begins with one of the names in
``SELECTORS``: ``{$worker}`` or ``{$task,outcome="failed"}``; so that every query follows the
variables at the top, as Grafana's dashboard-linter wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

_TARGET = 'cluster=~"$cluster",namespace=~"$namespace",job=~"$job",instance=~"$instance"'
SELECTORS = {
    "all": _TARGET,
    "worker": f'{_TARGET},worker=~"$worker"',
    "task": f'{_TARGET},worker=~"$worker",name=~"$task"',
    "queue": f'{_TARGET},queue_name=~"$queue"',
    "traffic": f'{_TARGET},worker=~"$worker",name=~"$task",queue_name=~"$queue"',
}

GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, GREY = (
    "green",
    "yellow",
    "orange",
    "red",
    "blue",
    "purple",
    "#8e8e99",
)


def expression(text: str) -> str:
    """With its selectors in full; on one line."""
    for name, matchers in SELECTORS.items():
        text = text.replace("{$" + name, "{" + matchers)
    return " ".join(text.split())


#: What has to be there before a series for its first value to be what was counted since: else the
#: exporter was started, and the worker has counted for long. New workers begin at zero, but a
#: report comes some seconds after its exporter's start.
OF_THE_EXPORTER = "on (cluster, namespace, job, instance) celery_memory_exporter_build_info{$all}"
OF_THE_AGENT = (
    "on (cluster, namespace, job, instance, broker, worker) "
    "celery_agent_overhead_seconds_total{$worker}"
)


def risen(counter: str, by: str, over: str = "$__range", *, before: str = OF_THE_EXPORTER) -> str:
    """What a counter rose by, and all of it where its series began meanwhile: the first event of
    its kind makes the series."""
    begun = f"{counter} unless {counter} offset {over} and {before} offset {over}"
    return f"sum by ({by}) ({begun} or increase({counter}[{over}]))"


LOST_LATELY = risen(
    "celery_task_lost_total{$worker}", "name, reason", "$__rate_interval", before=OF_THE_AGENT
)


# --- queries ------------------------------------------------------------------------------------


def query(text: str, legend: str = "", **more: Any) -> Json:
    """A range query."""
    return {
        "datasource": DATASOURCE,
        "expr": expression(text),
        "legendFormat": legend,
        "range": True,
        "instant": False,
        **more,
    }


def now(text: str, legend: str = "") -> Json:
    """Its value at the end of the time range."""
    return query(text, legend, range=False, instant=True)


def rows(text: str) -> Json:
    """The same as a table's rows: a column for each label, and one for the value."""
    return query(text, range=False, instant=True, format="table")


# --- panels -------------------------------------------------------------------------------------


def steps(*pairs: tuple[float | None, str]) -> Json:
    return {
        "mode": "absolute",
        "steps": [{"value": value, "color": color} for value, color in pairs],
    }


PLAIN = steps((None, GREEN))
#: Of a table's column of figures, in pixels; names have the rest.
FIGURE_WIDTH = 115


def override(field: str, *, regex: bool = False, **properties: Any) -> Json:
    """``custom__lineWidth=2`` sets ``custom.lineWidth``."""
    matcher = (
        {"id": "byRegexp", "options": f"/{field}/"} if regex else {"id": "byName", "options": field}
    )
    return {
        "matcher": matcher,
        "properties": [
            {"id": key.replace("__", "."), "value": value} for key, value in properties.items()
        ],
    }


DASHED = {"fill": "dash", "dash": [8, 6]}


def dashed(fields: str) -> Json:
    """Lines of the fields that the regular expression finds, beside full ones."""
    return override(fields, regex=True, custom__lineStyle=DASHED, custom__fillOpacity=0)


def panel(kind: str, title: str, doc: str, targets: Sequence[Json], unit: str, **more: Any) -> Json:
    """``doc`` says how to read it and what to do. Field settings go to ``defaults``, ``custom`` and
    ``overrides``."""
    defaults = {"unit": unit, "thresholds": PLAIN, **more.pop("defaults", {})}
    if "custom" in more:
        defaults["custom"] = more.pop("custom")
    return {
        "type": kind,
        "title": title,
        "description": doc,
        "datasource": DATASOURCE,
        "targets": [
            {"refId": chr(ord("A") + number), **target} for number, target in enumerate(targets)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        **more,
    }


def stat(
    title: str,
    doc: str,
    text: str,
    unit: str,
    *,
    thresholds: Json = PLAIN,
    empty: str = "–",
    spark: bool = False,
) -> Json:
    """One number. ``spark``: over its own course."""
    decimals = {"decimals": 0} if unit == "none" else {}
    return panel(
        "stat",
        title,
        doc,
        [query(text) if spark else now(text)],
        unit,
        defaults={"thresholds": thresholds, "noValue": empty, **decimals},
        options={
            "colorMode": "value",
            "graphMode": "area" if spark else "none",
            "justifyMode": "center",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "value",
        },
    )


def series(
    title: str,
    doc: str,
    targets: Sequence[Json],
    unit: str,
    *,
    legend: str = "bottom",
    calcs: Sequence[str] = ("lastNotNull", "max"),
    stack: bool = False,
    bars: bool = False,
    signed: bool = False,
    overrides: Sequence[Json] = (),
    **defaults: Any,
) -> Json:
    """Lines over time; ``stack`` piles them up, ``bars`` draws what happened in each interval."""
    custom = {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 60 if bars else 25 if stack else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }
    return panel(
        "timeseries",
        title,
        doc,
        targets,
        unit,
        defaults={
            **({} if signed else {"min": 0}),
            "color": {"mode": "palette-classic"},
            **defaults,
        },
        custom=custom,
        overrides=list(overrides),
        options={
            "legend": {
                "displayMode": "table" if calcs else "list",
                "placement": legend,
                "showLegend": True,
                "calcs": list(calcs),
                **({"sortBy": "Last *", "sortDesc": True} if calcs else {}),
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )


def bar_gauge(
    title: str, doc: str, text: str, legend: str, unit: str, *, thresholds: Json = PLAIN
) -> Json:
    """The highest now, each as a bar."""
    return panel(
        "bargauge",
        title,
        doc,
        [now(text, legend)],
        unit,
        defaults={"thresholds": thresholds, "min": 0},
        options={
            "displayMode": "gradient",
            "orientation": "horizontal",
            "showUnfilled": True,
            "valueMode": "color",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def heatmap(title: str, doc: str, text: str, unit: str) -> Json:
    """Of a histogram's buckets."""
    return panel(
        "heatmap",
        title,
        doc,
        [query(text, "{{le}}", format="heatmap")],
        unit,
        options={
            "calculate": False,
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Oranges",
                "fill": "dark-orange",
                "exponent": 0.5,
                "steps": 64,
                "reverse": False,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        },
    )


def table(
    title: str,
    doc: str,
    columns: Sequence[tuple[str, str]],
    targets: Sequence[str],
    *,
    sort: str,
    ascending: bool = False,
    overrides: Sequence[Json] = (),
    empty: str = "",
) -> Json:
    """Instant queries merged by the labels they share. ``columns``: field and heading, in order;
    ``Value #A`` is the first query's.

    Fields without a heading are left out.
    """
    names = [name for name, _ in columns]
    figures = [
        override(title, custom__width=FIGURE_WIDTH)
        for name, title in columns
        if name.startswith("Value")
    ]
    return panel(
        "table",
        title,
        doc,
        [rows(text) for text in targets],
        "none",
        defaults={"noValue": empty} if empty else {},
        custom={
            "align": "auto",
            "minWidth": 60,
            "cellOptions": {"type": "auto"},
            "filterable": False,
        },
        overrides=[*figures, *overrides],
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "footer": {"show": False, "reducer": ["sum"], "fields": ""},
        },
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": {"include": {"names": names}}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {},
                    "indexByName": {name: place for place, name in enumerate(names)},
                    "renameByName": dict(columns),
                },
            },
            {
                "id": "sortBy",
                "options": {"fields": {}, "sort": [{"field": sort, "desc": not ascending}]},
            },
        ],
    )
