"""The panels that the dashboards are made of.

Classic schema, which Grafana 10 to 13 read alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana.generate.fields import PLAIN, override
from grafana.generate.queries import DATASOURCE, Json, now, query, rows

#: Of a table's column of figures, in pixels; names have the rest.
FIGURE_WIDTH = 115
LAST_VALUE = {"calcs": ["lastNotNull"], "fields": "", "values": False}


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
            "reduceOptions": LAST_VALUE,
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
) -> Json:
    """Lines over time; ``stack`` piles them up, ``bars`` draws what happened in each interval.
    Unless it is ``signed``, its axis begins at zero."""
    from_zero = {} if signed else {"min": 0}
    return panel(
        "timeseries",
        title,
        doc,
        targets,
        unit,
        defaults={**from_zero, "color": {"mode": "palette-classic"}},
        custom=_drawn(stack=stack, bars=bars),
        overrides=list(overrides),
        options={"legend": _legend(legend, calcs), "tooltip": {"mode": "multi", "sort": "desc"}},
    )


def _drawn(*, stack: bool, bars: bool) -> Json:
    return {
        "drawStyle": "bars" if bars else "line",
        "lineWidth": 1,
        "fillOpacity": 60 if bars else 25 if stack else 8,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
    }


def _legend(placement: str, calcs: Sequence[str]) -> Json:
    """A table of each line's ``calcs``, the highest last value first; without any, the names."""
    return {
        "displayMode": "table" if calcs else "list",
        "placement": placement,
        "showLegend": True,
        "calcs": list(calcs),
        **({"sortBy": "Last *", "sortDesc": True} if calcs else {}),
    }


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
            "reduceOptions": LAST_VALUE,
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
        overrides=[*_figures_narrow(columns), *overrides],
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "footer": {"show": False, "reducer": ["sum"], "fields": ""},
        },
        transformations=_one_table(columns, {"field": sort, "desc": not ascending}),
    )


def _figures_narrow(columns: Sequence[tuple[str, str]]) -> list[Json]:
    return [
        override(heading, custom__width=FIGURE_WIDTH)
        for field, heading in columns
        if field.startswith("Value")
    ]


def _one_table(columns: Sequence[tuple[str, str]], sort: Json) -> list[Json]:
    """What makes one table of the answers: these columns in this order, under their headings."""
    fields = [field for field, _ in columns]
    return [
        {"id": "merge", "options": {}},
        {"id": "filterFieldsByName", "options": {"include": {"names": fields}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {field: place for place, field in enumerate(fields)},
                "renameByName": dict(columns),
            },
        },
        {"id": "sortBy", "options": {"fields": {}, "sort": [sort]}},
    ]
