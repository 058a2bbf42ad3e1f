"""Who grows, and who will hit the limit when?"""

from __future__ import annotations

from grafana.generate import fields, layout, panels
from grafana.generate.dashboards.headroom import LIMIT_SHARE, SECONDS_LEFT
from grafana.generate.fields import ALARM, GREEN, ORANGE, RED, steps
from grafana.generate.queries import LOST_LATELY, Json, query, risen

UID = "celery-memory-fleet"

#: Of a worker as a whole. RSS counts pages that children share with their parent in each; PSS does
#: not, where it is known.
MEMORY = "(celery_worker_memory_pss_bytes{$worker} or celery_worker_memory_rss_bytes{$worker})"
#: A task type of one worker, whatever labels the targets have: the same nodename may be in two
#: clusters, or at two brokers.
OF_TASK = "cluster, namespace, job, instance, broker, worker, name"
#: One row for each holder: members of a group may have several.
SUSPECT = "celery_leak_suspect{$worker}"
WITH_RATE = f"{SUSPECT} * ignoring (holder) group_left"


def suspects() -> Json:
    site = f"topk by ({OF_TASK}) (1, celery_task_retained_site_bytes{{$worker}})"
    types = f"topk by ({OF_TASK}) (1, celery_task_retained_objects{{$worker}})"
    return panels.table(
        "Suspects",
        "One row for each task type that leaks on a worker, fastest first. Class says what is left "
        "behind; holder is the container or the attribute that keeps it; line is where it was "
        "allocated. An empty task: the process grows and no task type explains it. Open Task "
        "memory for the evidence, and the exporter's own page for the advice.",
        [
            ("name", "Task"),
            ("worker", "Worker"),
            ("growth_class", "Class"),
            ("Value #A", "An hour"),
            ("Value #B", "A run"),
            ("object_type", "Left behind"),
            ("holder", "Holder"),
            ("site", "Line"),
        ],
        [
            f"{WITH_RATE} celery_leak_bytes_per_hour{{$worker}}",
            f"{WITH_RATE} celery_leak_bytes_per_run{{$worker}}",
            f"{SUSPECT} * on ({OF_TASK}) group_left (site) ({site} ^ 0)",
            f"{SUSPECT} * on ({OF_TASK}) group_left (object_type) ({types} ^ 0)",
        ],
        sort="An hour",
        overrides=[
            fields.override(
                "An hour",
                unit="bytes",
                custom__cellOptions=fields.COLORED_CELL,
                color=fields.fixed(RED),
            ),
            fields.override("A run", unit="bytes"),
            fields.override("Class", custom__width=105),
            fields.override("Worker", custom__width=160),
        ],
    )


def workers() -> Json:
    return panels.table(
        "Workers",
        "Memory is PSS where it can be read, and resident memory otherwise. Growth is what "
        "suspects leave behind an hour. Time left is how long it takes them to the limit of the "
        "pool's children (max_memory_per_child) or of the cgroup. Who has little of it: raise the "
        "limit, or recycle children sooner, until the leak is mended.",
        [
            ("worker", "Worker"),
            ("Value #A", "Memory"),
            ("Value #B", "Leaks an hour"),
            ("Value #C", "Of its limit"),
            ("Value #D", "Time left"),
            ("Value #E", "Running"),
        ],
        [
            f"sum by (worker) ({MEMORY})",
            "sum by (worker) (celery_leak_bytes_per_hour{$worker})",
            LIMIT_SHARE,
            f"min by (worker) ({SECONDS_LEFT})",
            "sum by (worker) (celery_worker_tasks_active{$worker})",
        ],
        sort="Memory",
        overrides=[
            fields.override("^(Memory|Leaks an hour)$", regex=True, unit="bytes"),
            fields.override("Time left", unit="s", decimals=1),
            fields.override(
                "Of its limit",
                unit="percentunit",
                custom__cellOptions=fields.COLORED_CELL,
                thresholds=fields.NEAR_LIMIT,
            ),
        ],
    )


def of_leaks() -> list[Json]:
    return [
        panels.stat(
            "Leaking task types",
            "Task types with a verdict, on any worker. The table below names them.",
            'count(count by (name) (celery_leak_suspect{$worker,name!=""})) or vector(0)',
            "none",
            thresholds=ALARM,
        ),
        panels.stat(
            "Leaked an hour",
            "What all suspects leave behind an hour at the rate that they run.",
            "sum(celery_leak_bytes_per_hour{$worker}) or vector(0)",
            "bytes",
            thresholds=fields.LEAKED_AN_HOUR,
        ),
        panels.stat(
            "First at its limit in",
            "The least time that any worker's leaks leave it. "
            "Without a limit or without a leak there is none.",
            f"min({SECONDS_LEFT})",
            "s",
            thresholds=steps((None, RED), (4 * 3600, ORANGE), (24 * 3600, GREEN)),
            empty="never",
        ),
    ]


def of_lives() -> list[Json]:
    return [
        panels.stat(
            "OOM kills",
            "Processes that the kernel killed in the workers' cgroups, in this time range.",
            "sum(increase(celery_worker_cgroup_oom_kills_total{$worker}[$__range])) or vector(0)",
            "none",
            thresholds=ALARM,
        ),
        panels.stat(
            "Runs lost",
            "Runs whose child died under them, in this time range; each is work that was not done.",
            f"sum({risen('celery_task_lost_total{$worker}', 'job')}) or vector(0)",
            "none",
            thresholds=ALARM,
        ),
        panels.stat(
            "Workers up",
            "Workers that report, beat or are seen in the process table.",
            "sum(celery_worker_up{$worker})",
            "none",
            thresholds=steps((None, RED), (1, GREEN)),
            spark=True,
        ),
    ]


def growth() -> layout.Row:
    memory = panels.series(
        "Memory by worker",
        "PSS where it can be read, resident memory otherwise (which counts shared pages once a "
        "process). A line that only rises is growth; what kind of growth, the table above says. "
        "Open Worker anatomy for one worker.",
        [query(f"sum by (worker) ({MEMORY})", "{{worker}}")],
        "bytes",
    )
    leaked = panels.series(
        "Leaked an hour, by task type",
        "The verdict's rate of each suspect. "
        "It stays at zero when a task type stops running, and goes when its leak is mended.",
        [
            query(
                "sum by (name, growth_class) (celery_leak_bytes_per_hour{$worker})",
                "{{name}} ({{growth_class}})",
            )
        ],
        "bytes",
    )
    return layout.row(9, memory, leaked)


def object_types() -> Json:
    return panels.bar_gauge(
        "Object types that pile up",
        "How many more objects of a type there are than when each process started, over all "
        "workers. A type of your own among them is the first thing to search for in the code.",
        "topk(10, sum by (object_type) (celery_worker_objects_growth{$worker}) > 0)",
        "{{object_type}}",
        "short",
        thresholds=steps((None, ORANGE)),
    )


def kills() -> Json:
    return panels.series(
        "Kills",
        "What the kernel killed in the workers' cgroups, "
        "and the runs that were lost with their child.",
        [
            query(
                "sum by (worker) (increase("
                "celery_worker_cgroup_oom_kills_total{$worker}[$__rate_interval])) > 0",
                "OOM kill in {{worker}}",
            ),
            query(f"{LOST_LATELY} > 0", "{{name}} lost ({{reason}})"),
        ],
        "none",
        bars=True,
        calcs=(),
    )


def children_ended() -> Json:
    return panels.series(
        "Children ended, by why",
        "tasks and memory are the pool's own recycling (max_tasks_per_child, "
        "max_memory_per_child); oom and signal are kills. Many of them a minute: "
        "the limit is too low, or the leak too fast.",
        [
            query(
                "sum by (reason) (increase("
                "celery_worker_children_exited_total{$worker}[$__rate_interval])) > 0",
                "{{reason}}",
            )
        ],
        "none",
        bars=True,
        stack=True,
        calcs=(),
    )


def held_by_the_allocator() -> Json:
    return panels.series(
        "Held by the allocator",
        "Bytes that the C heap keeps although nothing uses them. When this rises and the live "
        "memory does not, it is fragmentation or an earlier peak and no leak: "
        "MALLOC_ARENA_MAX=2, jemalloc or recycling helps.",
        [query("sum by (worker) (celery_worker_native_free_bytes{$worker})", "{{worker}}")],
        "bytes",
    )


def content() -> list[layout.Row]:
    return [
        layout.figures(*of_leaks(), *of_lives()),
        layout.row(8, suspects()),
        growth(),
        (9, [(14, workers()), (10, object_types())]),
        layout.row(8, kills(), children_ended(), held_by_the_allocator()),
    ]


def build() -> Json:
    return layout.dashboard(
        UID,
        "Celery memory / Fleet",
        "Who grows, which task type is to blame, and who will hit the limit when.",
        [layout.WORKER],
        content(),
    )
