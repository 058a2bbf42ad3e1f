"""What is one worker's memory, and what happens to its processes?"""

from __future__ import annotations

from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES
from grafana.generate import fields, layout, panels
from grafana.generate.fields import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, YELLOW, colored, line
from grafana.generate.queries import LOST_LATELY, Json, query

UID = "celery-memory-worker"
WORKER = layout.label_variable("worker", "Worker", "celery_worker_up{$all}", "worker", multi=False)


def what_it_is() -> Json:
    return panels.series(
        "What the memory is",
        f"Piled up: live Python objects (at {MEAN_BLOCK_BYTES} bytes a block, so about), live "
        "memory of the C heap, and what the C heap keeps unused. Lines: resident memory of all "
        "processes, what is their own (USS, not read above 4 GiB), and the limit. Live Python or C "
        "rises: something is left behind. Only the unused part rises: fragmentation. Neither rises "
        "and RSS does: pages that children no longer share with the main process, "
        "or memory that no allocator here knows of.",
        [
            query(
                f"sum(celery_worker_python_blocks{{$worker}}) * {MEAN_BLOCK_BYTES}", "live Python"
            ),
            query("sum(celery_worker_native_live_bytes{$worker})", "live C heap"),
            query("sum(celery_worker_native_free_bytes{$worker})", "C heap, unused"),
            query("sum(celery_worker_memory_rss_bytes{$worker})", "RSS, all processes"),
            query("sum(celery_worker_memory_uss_bytes{$worker})", "USS, all processes"),
            query("min(celery_worker_cgroup_memory_limit_bytes{$worker})", "cgroup limit"),
            query(
                "max(celery_worker_child_memory_limit_bytes{$worker}) *"
                'count(celery_worker_memory_rss_bytes{$worker,process!="main"})',
                "max_memory_per_child, all children",
            ),
        ],
        "bytes",
        stack=True,
        legend="right",
        calcs=("lastNotNull",),
        overrides=[
            colored("live Python", GREEN),
            colored("live C heap", YELLOW),
            colored("C heap, unused", GREY),
            line("RSS, all processes", BLUE),
            line("USS, all processes", PURPLE),
            line("cgroup limit", RED, dashed=True),
            line("max_memory_per_child, all children", ORANGE, dashed=True),
        ],
    )


def by_process() -> layout.Row:
    rss = panels.series(
        "RSS by process",
        "main is the worker itself, 0 and on are the pool's slots; a slot keeps its number when "
        "its child is recycled. A saw-tooth is recycling; a staircase is growth. "
        "The dashed line is max_memory_per_child.",
        [
            query("celery_worker_memory_rss_bytes{$worker}", "{{process}}"),
            query("max(celery_worker_child_memory_limit_bytes{$worker})", "max_memory_per_child"),
        ],
        "bytes",
        overrides=[line("max_memory_per_child", ORANGE, dashed=True)],
    )
    private = panels.series(
        "Private and shared",
        "Private (USS) is what ending the process would free. Shared is the rest of its resident "
        "memory. Private rises and RSS does not: a child writes to pages that it shared with the "
        "main process, which is no leak (gc.freeze() before the fork helps).",
        [
            query("celery_worker_memory_uss_bytes{$worker}", "private, {{process}}"),
            query(
                "celery_worker_memory_rss_bytes{$worker} - celery_worker_memory_uss_bytes{$worker}",
                "shared, {{process}}",
            ),
        ],
        "bytes",
        overrides=[fields.dashed("^shared")],
    )
    return layout.row(9, rss, private)


def resources() -> layout.Row:
    descriptors = panels.series(
        "Open descriptors",
        "Of each process. A line that only rises is a file, a socket or a pipe that is never "
        "closed: use with, close clients, or make one for the process. At the limit "
        "(celery_worker_max_fds) open() and connect() fail.",
        [query("celery_worker_open_fds{$worker}", "{{process}}")],
        "none",
    )
    threads = panels.series(
        "Threads",
        "Of each process, the agent's one in each child included. Threads that only rise are "
        "started in runs and never end; each keeps its stack and what it refers to.",
        [query("celery_worker_threads{$worker}", "{{process}}")],
        "none",
    )
    zombies = panels.series(
        "Zombies and swap",
        "Ended processes that a task started and never waited for, "
        "and memory that is swapped out (right axis).",
        [
            query("sum(celery_worker_zombies{$worker})", "zombies"),
            query("sum(celery_worker_memory_swap_bytes{$worker})", "swapped out"),
        ],
        "none",
        overrides=[fields.override("swapped out", unit="bytes", custom__axisPlacement="right")],
    )
    return layout.row(8, descriptors, threads, zombies)


def lives() -> layout.Row:
    children = panels.series(
        "Children started and ended, and runs lost",
        "Upwards what began, downwards what ended: tasks and memory are the pool's own recycling, "
        "oom and signal are kills, which lose the run that was going on. As many starts as a "
        "minute has seconds: the pool does little but start children.",
        [
            query(
                "sum(increase(celery_worker_children_started_total{$worker}[$__rate_interval]))",
                "started",
            ),
            query(
                "-sum by (reason) "
                "(increase(celery_worker_children_exited_total{$worker}[$__rate_interval])) < 0",
                "ended: {{reason}}",
            ),
            query(
                f"-{LOST_LATELY} < 0",
                "lost: {{name}} ({{reason}})",
            ),
        ],
        "none",
        bars=True,
        calcs=(),
        signed=True,
    )
    peak = panels.series(
        "Highest RSS of each process",
        "Since the process started. max_memory_per_child compares this one, after a run; the agent "
        "resets it before a run only where that changes nothing for the limit.",
        [query("celery_worker_memory_peak_rss_bytes{$worker}", "{{process}}")],
        "bytes",
    )
    return layout.row(8, children, peak)


def objects() -> layout.Row:
    types = panels.series(
        "Object types that pile up",
        "How many more there are than when each process started, as the last census counted. What "
        "rises with the runs is left behind by them; what levels off is a cache or an import.",
        [query("celery_worker_objects_growth{$worker} > 0", "{{object_type}}")],
        "short",
        legend="right",
        calcs=("lastNotNull",),
    )
    containers = panels.series(
        "Containers that grow",
        "Items in module level containers and class attributes, counted while a task type is "
        "suspected. The one that grows with the leak holds it: "
        "give it a bound, or take out what is done.",
        [query("celery_worker_container_items{$worker}", "{{container}}")],
        "short",
        legend="right",
        calcs=("lastNotNull",),
    )
    return layout.row(9, types, containers)


def collector() -> layout.Row:
    collections = panels.series(
        "Garbage collections",
        "A second, by generation, over all processes. Many full ones (generation 2) cost time; "
        "none at all while objects rise means that somebody turned the collector off.",
        [
            query(
                "sum by (generation) "
                "(rate(celery_worker_gc_collections_total{$worker}[$__rate_interval]))",
                "generation {{generation}}",
            )
        ],
        "cps",
    )
    tracked = panels.series(
        "Objects that the collector tracks",
        "Of each process, at the last census.",
        [query("celery_worker_gc_objects{$worker}", "{{process}}")],
        "short",
    )
    uncollectable = panels.series(
        "Uncollectable objects",
        "What the collector found unreachable and could not free (gc.garbage). Above zero, "
        "something keeps it there: an extension type's finalizer, or gc.DEBUG_SAVEALL left on.",
        [query("celery_worker_gc_uncollectable_objects{$worker}", "{{process}}")],
        "none",
    )
    return layout.row(7, collections, tracked, uncollectable)


def what_it_runs() -> Json:
    return panels.table(
        "The worker",
        "Empty fields are unknown without the agent.",
        [
            ("pool", "Pool"),
            ("concurrency", "Concurrency"),
            ("python_version", "Python"),
            ("celery_version", "Celery"),
            ("agent_version", "Agent"),
        ],
        ["celery_worker_info{$worker}"],
        sort="Pool",
    )


CGROUP_USED = (
    "max(celery_worker_cgroup_memory_working_set_bytes{$worker} / "
    "celery_worker_cgroup_memory_limit_bytes{$worker})"
)
CHILD_USED = (
    'max(celery_worker_memory_rss_bytes{$worker,process!="main"}) / '
    "max(celery_worker_child_memory_limit_bytes{$worker})"
)


def figures() -> list[Json]:
    return [
        panels.stat(
            "Resident",
            "Of all processes together; shared pages count in each.",
            "sum(celery_worker_memory_rss_bytes{$worker})",
            "bytes",
            spark=True,
        ),
        panels.stat(
            "Of its limit",
            "The cgroup's working set, or the biggest child "
            "where only max_memory_per_child is set.",
            f"{CGROUP_USED} or {CHILD_USED}",
            "percentunit",
            thresholds=fields.NEAR_LIMIT,
            empty="no limit",
        ),
        panels.stat(
            "Leaks an hour",
            "What its suspects leave behind an hour.",
            "sum(celery_leak_bytes_per_hour{$worker}) or vector(0)",
            "bytes",
            thresholds=fields.ALARM,
        ),
        panels.stat(
            "Running now",
            "Tasks that it executes.",
            "sum(celery_worker_tasks_active{$worker})",
            "none",
        ),
    ]


def content() -> list[layout.Row]:
    return [
        (layout.FIGURES_HEIGHT, [*((3, each) for each in figures()), (12, what_it_runs())]),
        layout.row(10, what_it_is()),
        by_process(),
        *layout.heading("What it holds", objects(), collector()),
        *layout.heading("Descriptors, threads, children", resources(), lives()),
    ]


def build() -> Json:
    return layout.dashboard(
        UID,
        "Celery memory / Worker anatomy",
        "One worker: what its memory is, what it holds, and what happens to its processes.",
        [WORKER],
        content(),
    )
