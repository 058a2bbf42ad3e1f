"""Which task type leaves what behind, and is it a leak or bloat?"""

from __future__ import annotations

from grafana.generate import fields, layout, panels
from grafana.generate.fields import ALARM, LEAKED_AN_HOUR
from grafana.generate.queries import Json, query

UID = "celery-memory-task"
RETAINED = "sum by (name) (celery_task_memory_retained_bytes{$task})"
RUNS = "sum by (name) (celery_task_memory_retained_runs{$task})"
RUNTIME = (
    "sum by (name) (increase(celery_task_runtime_sum{$task}[$__range])) / "
    "sum by (name) (increase(celery_task_runtime_count{$task}[$__range]))"
)
PEAK = "sum by (name, le) (increase(celery_task_memory_peak_bytes_bucket{$task}[$__range]))"
GROWN = "sum by (name) (rate(celery_task_memory_growth_bytes_total{$task}[$__rate_interval]))"
RELEASED = "sum by (name) (rate(celery_task_memory_release_bytes_total{$task}[$__rate_interval]))"


def overview() -> Json:
    return panels.table(
        "Task types",
        "Leaks an hour and a run are the verdict's: empty where nothing leaks. Left a run is the "
        "mean of live memory over all runs in the processes that are alive, start-up and caches "
        "included. Peak is the 99th percentile of what a run needs for a moment. High peak, "
        "nothing left: bloat, and RSS that does not come down. Something left in each run: a leak.",
        [
            ("name", "Task"),
            ("Value #A", "Leaks an hour"),
            ("Value #B", "Leaks a run"),
            ("Value #C", "Left a run"),
            ("Value #D", "Runs"),
            ("Value #E", "Audited"),
            ("Value #F", "Peak"),
            ("Value #G", "Runtime"),
        ],
        [
            "sum by (name) (celery_leak_bytes_per_hour{$task})",
            "max by (name) (celery_leak_bytes_per_run{$task})",
            f"{RETAINED} / {RUNS}",
            "sum by (name) (increase(celery_task_succeeded_total{$task}[$__range]))",
            "sum by (name) (increase(celery_task_memory_audited_runs_total{$task}[$__range]))",
            f"histogram_quantile(0.99, {PEAK})",
            RUNTIME,
        ],
        sort="Leaks an hour",
        overrides=[
            fields.override("^(Left a run|Peak)$", regex=True, unit="bytes"),
            fields.override(
                "^Leaks (an hour|a run)$",
                regex=True,
                unit="bytes",
                custom__cellOptions=fields.COLORED_CELL,
                thresholds=ALARM,
            ),
            fields.override("Runtime", unit="s"),
            fields.override("^(Runs|Audited)$", regex=True, unit="short", decimals=0),
        ],
    )


def retained() -> layout.Row:
    left = panels.series(
        "Left behind and alive",
        "Live memory that runs of each type left in processes that are alive now. A leak rises for "
        "ever; a cache rises and levels off; recycling a child lets it fall.",
        [query(RETAINED, "{{name}}")],
        "bytes",
    )
    rate = panels.series(
        "Left behind an hour",
        "The slope of the panel beside it, over half an hour. "
        "This is the memory that one hour of this task type costs.",
        [
            query(
                "sum by (name) (deriv(celery_task_memory_retained_bytes{$task}[30m])) * 3600 > 0",
                "{{name}}",
            )
        ],
        "bytes",
    )
    each = panels.series(
        "Left behind a run",
        "Mean over the runs in processes that are alive. "
        "It comes down to zero for a cache that is full, and stays for a leak.",
        [query(f"{RETAINED} / {RUNS} > 0", "{{name}}")],
        "bytes",
    )
    return layout.row(9, left, rate, each)


def evidence() -> layout.Row:
    survivors = panels.table(
        "What outlives a run",
        "Objects that an audited run leaves behind, by type. "
        "About one a run of a type of your own: that is the leak.",
        [("name", "Task"), ("object_type", "Type"), ("Value", "A run")],
        ["max by (name, object_type) (celery_task_retained_objects{$task})"],
        sort="A run",
        overrides=[fields.override("A run", decimals=2)],
    )
    sites = panels.table(
        "On which line",
        "Where the memory that a deep-audited run leaves behind was allocated.",
        [("name", "Task"), ("site", "Line"), ("Value", "A run")],
        ["max by (name, site) (celery_task_retained_site_bytes{$task})"],
        sort="A run",
        overrides=[fields.override("A run", unit="bytes")],
    )
    return layout.row(8, survivors, sites)


def resident() -> layout.Row:
    deltas = panels.heatmap(
        "RSS after a run less before",
        "How many runs changed resident memory by how much. All around zero: innocent. A band "
        "above zero that stays: growth. Bands far above and below: memory that comes and goes.",
        "sum by (le) (increase(celery_task_memory_delta_bytes_bucket{$task}[$__rate_interval]))",
        "bytes",
    )
    peaks = panels.series(
        "Peak of a run",
        "The 99th percentile of what a run needs above its start. "
        "Concurrency times this has to fit below the limit.",
        [
            query(
                "histogram_quantile(0.99, sum by (name, le) "
                "(rate(celery_task_memory_peak_bytes_bucket{$task}[$__rate_interval])))",
                "{{name}}",
            )
        ],
        "bytes",
    )
    return layout.row(9, deltas, peaks)


def bloat() -> layout.Row:
    net = panels.series(
        "Bloat against leak",
        "Each second, what resident memory rose by over runs less what it fell by (RSS), beside "
        "the growth of live memory that runs left behind (live). Both rise: a leak. Only RSS "
        "rises: the allocator keeps it, or pages are no longer shared. A task type whose RSS is "
        "above zero while another's is as far below it only takes over what the other gave back.",
        [
            query(f"{GROWN} - {RELEASED}", "RSS, {{name}}"),
            query(
                "sum by (name) (deriv(celery_task_memory_retained_bytes{$task}[5m]))",
                "live, {{name}}",
            ),
        ],
        "Bps",
        signed=True,
        overrides=[fields.dashed("^RSS")],
    )
    turnover = panels.series(
        "Turnover of RSS",
        "What runs added to resident memory, each second. High beside a low net figure: memory is "
        "taken and given back in each run.",
        [query(GROWN, "{{name}}")],
        "Bps",
    )
    return layout.row(9, net, turnover)


def estimates() -> Json:
    return panels.table(
        "Estimated, where there is no agent",
        "From task events and the process table, by least squares: resident memory that a run "
        "adds. Where the error is a third of it or more, it says nothing. "
        "Install the agent to know.",
        [
            ("worker", "Worker"),
            ("name", "Task"),
            ("Value #A", "A run"),
            ("Value #B", "Error"),
            ("Value #C", "Runs"),
        ],
        [
            "sum by (worker, name) (celery_task_memory_estimate_bytes{$task})",
            "sum by (worker, name) (celery_task_memory_estimate_error_bytes{$task})",
            "sum by (worker, name) (celery_task_memory_estimate_runs{$task})",
        ],
        sort="A run",
        empty="Every worker here has an agent",
        overrides=[
            fields.override("^(A run|Error)$", regex=True, unit="bytes"),
            fields.override("Runs", unit="short", decimals=0),
        ],
    )


def figures() -> layout.Row:
    return layout.figures(
        panels.stat(
            "Leaking task types",
            "Among those chosen above.",
            "count(count by (name) (celery_leak_suspect{$task})) or vector(0)",
            "none",
            thresholds=ALARM,
        ),
        panels.stat(
            "Leaked an hour",
            "What the suspects among them leave behind.",
            "sum(celery_leak_bytes_per_hour{$task}) or vector(0)",
            "bytes",
            thresholds=LEAKED_AN_HOUR,
        ),
        panels.stat(
            "Runs audited",
            "Measured exactly, by what outlived them, in this time range. "
            "A verdict rests on these.",
            "sum(increase(celery_task_memory_audited_runs_total{$task}[$__range])) or vector(0)",
            "short",
        ),
        panels.stat(
            "Left behind and alive",
            "By all runs, in processes that are alive now.",
            "sum(celery_task_memory_retained_bytes{$task})",
            "bytes",
            spark=True,
        ),
    )


def content() -> list[layout.Row]:
    return [
        figures(),
        layout.row(8, overview()),
        retained(),
        evidence(),
        *layout.heading(
            "Resident memory over runs", resident(), bloat(), layout.row(7, estimates())
        ),
    ]


def build() -> Json:
    return layout.dashboard(
        UID,
        "Celery memory / Task memory",
        "What each task type leaves behind, on which line, and whether it is a leak or bloat.",
        [layout.WORKER, layout.TASK],
        content(),
    )
