"""What is around the panels: their place on the grid, variables, annotations, links.

Panels are laid out in rows of the grid's 24 columns: none can overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from grafana.generate.fields import BLUE, ORANGE, RED
from grafana.generate.queries import DATASOURCE, Json, expression

COLUMNS = 24
#: 39 is Grafana 10's; later ones migrate it when they load it.
SCHEMA_VERSION = 39
TAG = "celery"

#: A panel and its width.
Cell = tuple[int, Json]
#: Panels beside each other, and their height.
Row = tuple[int, Sequence[Cell]]
FIGURES_HEIGHT = 4


def row(height: int, *panels: Json) -> Row:
    """Panels beside each other, each as wide as the others."""
    return height, [(COLUMNS // len(panels), each) for each in panels]


def figures(*stats: Json) -> Row:
    """Single numbers beside each other."""
    return row(FIGURES_HEIGHT, *stats)


def heading(title: str, *rows_below: Row) -> list[Row]:
    """A row's title, and the rows that it stands above."""
    return [
        (1, [(COLUMNS, {"type": "row", "title": title, "collapsed": False, "panels": []})]),
        *rows_below,
    ]


def placed(rows_of_panels: Iterable[Row]) -> list[Json]:
    """Each row below the one before; raises ``ValueError`` for one that is not as wide as the
    grid."""
    panels: list[Json] = []
    top = 0
    for height, cells in rows_of_panels:
        left = 0
        for width, each in cells:
            panels.append(
                {
                    "id": len(panels) + 1,
                    "gridPos": {"x": left, "y": top, "w": width, "h": height},
                    **each,
                }
            )
            left += width
        if left != COLUMNS:
            raise ValueError(f"the row of {cells[0][1]['title']!r} is {left} columns wide")
        top += height
    return panels


def variable(
    name: str, label: str, text: str, *, multi: bool = True, may_be_absent: bool = False
) -> Json:
    """Chosen from a label's values: with ``multi`` any number of them or all, at first all; without
    it one.

    A label that may be absent is matched by anything, which includes nothing.
    """
    chosen: Json
    if multi:
        all_of_them = {"selected": True, "text": ["All"], "value": ["$__all"]}
        chosen = {
            "current": all_of_them,
            "includeAll": True,
            "allValue": ".*" if may_be_absent else ".+",
        }
    else:
        chosen = {"current": {}, "includeAll": False}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": text,
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "hide": 0,
        **chosen,
    }


#: What tells targets apart, in the order in which it is chosen; not every Prometheus has the first
#: two.
TARGET_LABELS = ("cluster", "namespace", "job", "instance")
OPTIONAL_LABELS = ("cluster", "namespace")
#: Every worker has a series of this.
OF_EVERY_WORKER = "celery_worker_up"


def target_variables() -> list[Json]:
    """Where the series come from; each label's values are those beside the ones chosen before
    it."""
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
    }
    variables, within = [source], ""
    for name in TARGET_LABELS:
        series = OF_EVERY_WORKER + (f"{{{within}}}" if within else "")
        text = f"label_values({series}, {name})"
        optional = name in OPTIONAL_LABELS
        variables.append(variable(name, name.capitalize(), text, may_be_absent=optional))
        within += f'{"," if within else ""}{name}=~"${name}"'
    return variables


def label_variable(name: str, label: str, metric: str, key: str, *, multi: bool = True) -> Json:
    """From a family's label, following the variables before it. ``metric`` with its selector."""
    return variable(name, label, f"label_values({expression(metric)}, {key})", multi=multi)


WORKER = label_variable("worker", "Worker", "celery_worker_up{$all}", "worker")
TASK = label_variable("task", "Task", "celery_task_received_total{$worker}", "name")


def annotation(name: str, color: str, text: str, title: str, tags: str) -> Json:
    """A mark at each time at which the query has a value."""
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": expression(text),
        "titleFormat": title,
        "tagKeys": tags,
    }


_GRAFANA_S_OWN = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
    "name": "Annotations & Alerts",
    "type": "dashboard",
}
ANNOTATIONS = [
    _GRAFANA_S_OWN,
    annotation(
        "Worker restarts",
        BLUE,
        "resets(celery_worker_children_started_total{$all}[$__rate_interval]) > 0",
        "{{worker}} restarted",
        "worker",
    ),
    annotation(
        "OOM kills",
        RED,
        "increase(celery_worker_cgroup_oom_kills_total{$all}[$__rate_interval]) > 0",
        "OOM kill in {{worker}}'s cgroup",
        "worker",
    ),
    annotation(
        "Firing alerts",
        ORANGE,
        'ALERTS{$all,alertname=~"Celery.+",alertstate="firing"}',
        "{{alertname}}: {{worker}} {{name}}",
        "severity",
    ),
]


def dashboard(
    uid: str, title: str, doc: str, variables: Sequence[Json], content: Iterable[Row]
) -> Json:
    """Linked with the others, over the same time and with the same variables; ``variables`` follow
    those of the target."""
    link = {
        "type": "dashboards",
        "title": "Celery",
        "tags": [TAG],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": uid,
        "title": title,
        "description": doc,
        "tags": [TAG, "memory"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "links": [link],
        "annotations": {"list": ANNOTATIONS},
        "templating": {"list": [*target_variables(), *variables]},
        "panels": placed(content),
    }
