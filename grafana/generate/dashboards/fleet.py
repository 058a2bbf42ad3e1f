"""Who grows, and who will hit the limit when?"""

from __future__ import annotations

from grafana.generate import layout, panels
from grafana.generate.panels import GREEN, LOST_LATELY, ORANGE, RED, Json, query, risen

UID = "celery-memory-fleet"

#: Of a worker as a whole. RSS counts pages that children share with their parent in each; PSS does
#: not, where it is known.
MEMORY = "(celery_worker_memory_pss_bytes{$worker} or celery_worker_memory_rss_bytes{$worker})"
CHILDREN = 'celery_worker_memory_rss_bytes{$worker,process!="main"}'
LIMIT, USED = (
    "celery_worker_cgroup_memory_limit_bytes{$worker}",
    "celery_worker_cgroup_memory_working_set_bytes{$worker}",
)
CHILD_LIMIT = "celery_worker_child_memory_limit_bytes{$worker}"
#: A task type of one worker, whatever labels the targets have: the same nodename may be in two
#: clusters, or at two brokers.
OF_TASK = "cluster, namespace, job, instance, broker, worker, name"
#: One row for each holder: members of a group may have several.
EACH_SUSPECT = "celery_leak_suspect{$worker} * ignoring (holder) group_left"


def of_both_limits(of_children: str, of_cgroup: str) -> str:
    """What is told of the pool's own limit for each child (max_memory_per_child) and of the
    cgroup's; ``or`` alone drops one."""
    return f"""label_replace({of_children}, "limit", "children", "", "")
        or label_replace({of_cgroup}, "limit", "cgroup", "", "")"""


#: Of whichever limit is nearer.
CHILDREN_SHARE = f"max without (process) ({CHILDREN}) / {CHILD_LIMIT}"
LIMIT_SHARE = f"max by (worker) ({of_both_limits(CHILDREN_SHARE, f'{USED} / {LIMIT}')})"
CHILDREN_LEFT = (
    f"count without (process) ({CHILDREN}) * {CHILD_LIMIT} - sum without (process) ({CHILDREN})"
)
HEADROOM = (
    f"clamp_min(min without (limit) ({of_both_limits(CHILDREN_LEFT, f'{LIMIT} - {USED}')}), 0)"
)
LEAK_A_SECOND = (
    "(sum without (name, growth_class) (celery_leak_bytes_per_hour{$worker}) / 3600 > 0)"
)
SECONDS_LEFT = f"{HEADROOM} / {LEAK_A_SECOND}"


def suspects() -> Json:
    site = f"topk by ({OF_TASK}) (1, celery_task_retained_site_bytes{{$worker}})"
    objects = f"topk by ({OF_TASK}) (1, celery_task_retained_objects{{$worker}})"
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
            f"{EACH_SUSPECT} celery_leak_bytes_per_hour{{$worker}}",
            f"{EACH_SUSPECT} celery_leak_bytes_per_run{{$worker}}",
            f"celery_leak_suspect{{$worker}} * on ({OF_TASK}) group_left (site) ({site} ^ 0)",
            f"celery_leak_suspect{{$worker}} * on ({OF_TASK}) group_left (object_type) ({objects} "
            "^ 0)",
        ],
        sort="An hour",
        overrides=[
            panels.override(
                "An hour",
                unit="bytes",
                custom__cellOptions={"type": "color-text"},
                color={"mode": "fixed", "fixedColor": RED},
            ),
            panels.override("A run", unit="bytes"),
            panels.override("Class", custom__width=105),
            panels.override("Worker", custom__width=160),
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
            panels.override("^(Memory|Leaks an hour)$", regex=True, unit="bytes"),
            panels.override("Time left", unit="s", decimals=1),
            panels.override(
                "Of its limit",
                unit="percentunit",
                custom__cellOptions={"type": "color-text"},
                thresholds=panels.steps((None, GREEN), (0.8, ORANGE), (0.95, RED)),
            ),
        ],
    )


def figures() -> layout.Row:
    alarm = panels.steps((None, GREEN), (1, RED))
    return layout.figures(
        panels.stat(
            "Leaking task types",
            "Task types with a verdict, on any worker. The table below names them.",
            'count(count by (name) (celery_leak_suspect{$worker,name!=""})) or vector(0)',
            "none",
            thresholds=alarm,
        ),
        panels.stat(
            "Leaked an hour",
            "What all suspects leave behind an hour at the rate that they run.",
            "sum(celery_leak_bytes_per_hour{$worker}) or vector(0)",
            "bytes",
            thresholds=panels.steps((None, GREEN), (1, ORANGE), (100 * 2**20, RED)),
        ),
        panels.stat(
            "First at its limit in",
            "The least time that any worker's leaks leave it. Without a limit or without a leak "
            "there is none.",
            f"min({SECONDS_LEFT})",
            "s",
            thresholds=panels.steps((None, RED), (4 * 3600, ORANGE), (24 * 3600, GREEN)),
            empty="never",
        ),
        panels.stat(
            "OOM kills",
            "Processes that the kernel killed in the workers' cgroups, in this time range.",
            "sum(increase(celery_worker_cgroup_oom_kills_total{$worker}[$__range])) or vector(0)",
            "none",
            thresholds=alarm,
        ),
        panels.stat(
            "Runs lost",
            "Runs whose child died under them, in this time range; each is work that was not done.",
            f"sum({risen('celery_task_lost_total{$worker}', 'job')}) or vector(0)",
            "none",
            thresholds=alarm,
        ),
        panels.stat(
            "Workers up",
            "Workers that report, beat or are seen in the process table.",
            "sum(celery_worker_up{$worker})",
            "none",
            thresholds=panels.steps((None, RED), (1, GREEN)),
            spark=True,
        ),
    )


def growth() -> list[tuple[int, Json]]:
    return [
        (
            12,
            panels.series(
                "Memory by worker",
                "PSS where it can be read, resident memory otherwise (which counts shared pages "
                "once a process). A line that only rises is growth; what kind of growth, the table "
                "above says. Open Worker anatomy for one worker.",
                [query(f"sum by (worker) ({MEMORY})", "{{worker}}")],
                "bytes",
            ),
        ),
        (
            12,
            panels.series(
                "Leaked an hour, by task type",
                "The verdict's rate of each suspect. It stays at zero when a task type stops "
                "running, and goes when its leak is mended.",
                [
                    query(
                        "sum by (name, growth_class) (celery_leak_bytes_per_hour{$worker})",
                        "{{name}} ({{growth_class}})",
                    )
                ],
                "bytes",
            ),
        ),
    ]


def where() -> list[tuple[int, Json]]:
    return [
        (14, workers()),
        (
            10,
            panels.bar_gauge(
                "Object types that pile up",
                "How many more objects of a type there are than when each process started, over "
                "all workers. A type of your own among them is the first thing to search for in "
                "the code.",
                "topk(10, sum by (object_type) (celery_worker_objects_growth{$worker}) > 0)",
                "{{object_type}}",
                "short",
                thresholds=panels.steps((None, ORANGE)),
            ),
        ),
    ]


def ends() -> list[tuple[int, Json]]:
    return [
        (
            8,
            panels.series(
                "Kills",
                "What the kernel killed in the workers' cgroups, and the runs that were lost with "
                "their child.",
                [
                    query(
                        "sum by (worker) (increase("
                        "celery_worker_cgroup_oom_kills_total{$worker}[$__rate_interval])) > 0",
                        "OOM kill in {{worker}}",
                    ),
                    query(
                        f"{LOST_LATELY} > 0",
                        "{{name}} lost ({{reason}})",
                    ),
                ],
                "none",
                bars=True,
                calcs=(),
            ),
        ),
        (
            8,
            panels.series(
                "Children ended, by why",
                "tasks and memory are the pool's own recycling (max_tasks_per_child, "
                "max_memory_per_child); oom and signal are kills. Many of them a minute: the limit "
                "is too low, or the leak too fast.",
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
            ),
        ),
        (
            8,
            panels.series(
                "Held by the allocator",
                "Bytes that the C heap keeps although nothing uses them. When this rises and the "
                "live memory does not, it is fragmentation or an earlier peak and no leak: "
                "MALLOC_ARENA_MAX=2, jemalloc or recycling helps.",
                [query("sum by (worker) (celery_worker_native_free_bytes{$worker})", "{{worker}}")],
                "bytes",
            ),
        ),
    ]


def content() -> list[layout.Row]:
    return [
        figures(),
        (8, [(24, suspects())]),
        (
            9,
            growth(),
        ),
        (
            9,
            where(),
        ),
        (
            8,
            ends(),
        ),
    ]


def build() -> Json:
    return layout.dashboard(
        UID,
        "Celery memory / Fleet",
        "Who grows, which task type is to blame, and who will hit the limit when.",
        [layout.WORKER],
        content(),
    )
