"""Families of workers, their processes, and what the agent in them costs."""

from __future__ import annotations

from celery_memory_exporter.metrics.families.family import Family


def _worker(name: str, kind: str, doc: str, *labels: str) -> Family:
    return Family(f"celery_worker_{name}", kind, ("worker", *labels), doc)


def _process(name: str, doc: str, kind: str = "gauge", *labels: str) -> Family:
    return _worker(name, kind, doc, "process", *labels)


_INFO_LABELS = (
    "hostname",
    "pool",
    "concurrency",
    "python_version",
    "celery_version",
    "agent_version",
)

WORKERS: tuple[Family, ...] = (
    _worker(
        "info",
        "info",
        "What the worker is; empty labels are unknown without the agent.",
        *_INFO_LABELS,
    ),
    _worker(
        "up",
        "gauge",
        "1 while a report, a heartbeat or the process table shows the worker.",
        "hostname",
    ),
    _worker(
        "tasks_active",
        "gauge",
        "Tasks being executed, from the worker's last heartbeat or report.",
        "hostname",
    ),
    _worker("prefetched_tasks", "gauge", "Tasks that the worker has received and not started."),
    _worker("concurrency", "gauge", "Tasks that the worker's pool runs at once."),
    _process("memory_rss_bytes", "Resident memory (VmRSS), shared pages included."),
    _process(
        "memory_anon_bytes", "Resident anonymous memory (RssAnon): heap, stacks, private mappings."
    ),
    _process(
        "memory_shmem_bytes", "Resident shared memory (RssShmem): tmpfs files, shared mappings."
    ),
    _process("memory_swap_bytes", "Memory swapped out (VmSwap)."),
    _process(
        "memory_peak_rss_bytes",
        "Highest resident memory since the process started; what max_memory_per_child compares.",
    ),
    _process(
        "memory_pss_bytes",
        "Proportional share of resident memory (smaps_rollup), read at a slow pace.",
    ),
    _process(
        "memory_uss_bytes",
        "Memory that would be freed if the process ended (smaps_rollup), read at a slow pace.",
    ),
    _process("python_blocks", "Live blocks of Python's allocator (sys.getallocatedblocks)."),
    _process("native_live_bytes", "Bytes in use in the C heap (mallinfo2: uordblks + hblkhd)."),
    _process(
        "native_free_bytes",
        "Bytes that the C heap holds unused (mallinfo2: fordblks): fragmentation or an earlier "
        "peak.",
    ),
    _process("open_fds", "Open file descriptors."),
    _process("max_fds", "Soft limit of open file descriptors."),
    _process("threads", "Threads."),
    _process("zombies", "Ended child processes that were not waited for."),
    _process("gc_objects", "Objects that the garbage collector tracks, at the last census."),
    _process(
        "gc_uncollectable_objects",
        "Objects that the collector found unreachable and could not free (gc.garbage).",
    ),
    _process(
        "gc_collections_total", "Garbage collections (gc.get_stats).", "counter", "generation"
    ),
    _worker(
        "cgroup_memory_limit_bytes",
        "gauge",
        "Smallest memory limit of the worker's cgroup and its ancestors.",
    ),
    _worker("cgroup_memory_usage_bytes", "gauge", "Memory usage of the worker's cgroup."),
    _worker(
        "cgroup_memory_working_set_bytes",
        "gauge",
        "Usage less the inactive page cache: what the kubelet evicts on.",
    ),
    _worker(
        "cgroup_oom_kills_total",
        "counter",
        "Processes that the kernel killed for lack of memory in the worker's cgroup.",
    ),
    _worker(
        "child_memory_limit_bytes", "gauge", "max_memory_per_child as the worker really has it."
    ),
    _worker("children_started_total", "counter", "Pool children started."),
    _worker(
        "children_exited_total",
        "counter",
        "Pool children ended, by why: tasks, memory, oom, signal, shutdown, error.",
        "reason",
    ),
    _worker(
        "objects",
        "gauge",
        "Objects of the fastest growing types in all processes, at the last census.",
        "object_type",
    ),
    _worker(
        "container_items",
        "gauge",
        "Items in long-lived containers that grow, while a task type is suspected.",
        "container",
    ),
    _worker(
        "objects_growth",
        "gauge",
        "How many more of them than when each process started.",
        "object_type",
    ),
)

AGENTS: tuple[Family, ...] = (
    Family(
        "celery_agent_overhead_seconds_total",
        "counter",
        ("worker",),
        "Time that the agent spent around task runs.",
    ),
    Family(
        "celery_agent_reports_dropped_total",
        "counter",
        ("worker",),
        "Reports that the agent could not send; the next one says all they said.",
    ),
    Family(
        "celery_agent_errors_total",
        "counter",
        ("worker",),
        "Errors inside the agent; each place is logged once in the worker.",
    ),
    Family(
        "celery_agent_audits_discarded_total",
        "counter",
        ("worker", "reason"),
        "Audits that said nothing, mostly for what the task did to its collector or tracer.",
    ),
)
