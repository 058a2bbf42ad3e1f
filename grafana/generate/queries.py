"""Queries as panels, variables and annotations have them.

A selector begins with one of the names in ``SELECTORS``: ``{$worker}`` or
``{$task,outcome="failed"}``; so that every query follows the variables at the top, as Grafana's
dashboard-linter wants it.
"""

from __future__ import annotations

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


def expression(text: str) -> str:
    """With its selectors in full; on one line."""
    for name, matchers in SELECTORS.items():
        text = text.replace("{$" + name, "{" + matchers)
    return " ".join(text.split())


# --- what a counter rose by ---------------------------------------------------------------------

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


# --- as a panel asks ----------------------------------------------------------------------------


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
