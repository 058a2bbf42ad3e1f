"""Every metric family, defined once: name, type, labels, what it says and where it comes from.

README, dashboards and rules are tested against this list. Names follow the best-known exporter
where it has the family, so that its dashboards go on working; ``worker`` (the full nodename) is
extra. ``process`` is ``main`` or the pool slot, never a pid. With several brokers, all but the
exporter's own families have the label ``broker`` as well.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family. A counter's ``name`` ends in ``_total``, an info's in ``_info``, as the
    samples do."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


def _worker(name: str, kind: str, doc: str, *labels: str) -> Family:
    return Family(f"celery_worker_{name}", kind, ("worker", *labels), doc)


def _process(name: str, doc: str, kind: str = "gauge", *labels: str) -> Family:
    return _worker(name, kind, doc, "process", *labels)


def _task(name: str, kind: str, doc: str, *labels: str) -> Family:
    return Family(f"celery_task_{name}", kind, ("worker", "name", *labels), doc)


def _traffic(name: str, kind: str, doc: str, *labels: str) -> Family:
    return _task(name, kind, doc, "hostname", "queue_name", *labels)


def _queue(name: str, doc: str, *labels: str) -> Family:
    return Family(f"celery_{name}", "gauge", ("queue_name", *labels), doc)


def _own(name: str, kind: str, doc: str, *labels: str) -> Family:
    return Family(f"celery_memory_exporter_{name}", kind, labels, doc)


_INFO_LABELS = (
    "hostname",
    "pool",
    "concurrency",
    "python_version",
    "celery_version",
    "agent_version",
)

FAMILIES: tuple[Family, ...] = (
    # Workers and their processes
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
    # Tasks: memory
    _task(
        "memory_delta_bytes",
        "histogram",
        "Resident memory after a run minus before, of runs alone in their process.",
    ),
    _task(
        "memory_growth_bytes_total",
        "counter",
        "Sum of the positive differences of resident memory over runs.",
    ),
    _task(
        "memory_release_bytes_total",
        "counter",
        "Sum of the negative differences of resident memory over runs.",
    ),
    _task(
        "memory_peak_bytes", "histogram", "Highest resident memory during a run above its start."
    ),
    _task(
        "memory_retained_bytes",
        "gauge",
        "Live memory that runs left behind in processes alive now: C heap, and Python blocks at 90 "
        "bytes.",
    ),
    _task(
        "memory_retained_blocks",
        "gauge",
        "Live Python blocks that runs left behind in processes alive now.",
    ),
    _task(
        "memory_retained_runs",
        "gauge",
        "Runs behind the retained figures: in processes alive now, without each one's first.",
    ),
    _task(
        "memory_audited_runs_total",
        "counter",
        "Runs that were audited: measured exactly, by what outlived them.",
    ),
    _task(
        "retained_objects",
        "gauge",
        "Objects that outlive an audited run, of the most frequent types.",
        "object_type",
    ),
    _task(
        "retained_site_bytes",
        "gauge",
        "Bytes that a deep-audited run leaves behind, by the line that allocated them.",
        "site",
    ),
    _task(
        "lost_total",
        "counter",
        "Runs whose child died under them, by why the child ended.",
        "reason",
    ),
    _task(
        "memory_estimate_bytes",
        "gauge",
        "Resident memory that a run adds, ESTIMATED by least squares over events and process "
        "table, where no agent measures.",
    ),
    _task(
        "memory_estimate_error_bytes",
        "gauge",
        "Standard error of the estimate: below three of them it tells nothing.",
    ),
    _task("memory_estimate_runs", "gauge", "Runs behind the estimate."),
    # Verdicts
    Family(
        "celery_leak_suspect",
        "gauge",
        ("worker", "name", "growth_class", "holder"),
        "1 for each task type that leaks; an empty name where only a process grows.",
    ),
    Family(
        "celery_leak_bytes_per_run",
        "gauge",
        ("worker", "name", "growth_class"),
        "What a suspect's run leaves behind.",
    ),
    Family(
        "celery_leak_bytes_per_hour",
        "gauge",
        ("worker", "name", "growth_class"),
        "The same at the rate that it runs.",
    ),
    # Tasks: traffic, as the best-known exporter names it
    Family(
        "celery_task_sent_total",
        "counter",
        ("name", "hostname", "queue_name"),
        "Tasks that clients sent (task_send_sent_event). hostname is generic unless labels.senders "
        "is set.",
    ),
    _traffic("received_total", "counter", "Tasks that the worker received."),
    _traffic("started_total", "counter", "Tasks that began to run."),
    _traffic("succeeded_total", "counter", "Tasks that succeeded."),
    _traffic(
        "failed_total",
        "counter",
        "Tasks that failed, by exception class; time limits and lost children included.",
        "exception",
    ),
    _traffic("retried_total", "counter", "Tasks that asked to be retried."),
    _traffic("rejected_total", "counter", "Tasks whose message was rejected."),
    _traffic("revoked_total", "counter", "Tasks that were revoked, expired or terminated."),
    _traffic("runtime", "histogram", "Runtime of tasks that succeeded, in seconds."),
    _traffic(
        "queue_wait_time",
        "histogram",
        "From when a task was sent, or due, until it started, in seconds; where that is told.",
    ),
    _task(
        "outcome_runtime_seconds",
        "summary",
        "Runtime by outcome, failed runs included; of workers with an agent.",
        "outcome",
    ),
    _task("running", "gauge", "Tasks that run now."),
    _task(
        "running_oldest_seconds",
        "gauge",
        "For how long the oldest task that runs now has been running.",
    ),
    # Queues
    _queue("queue_length", "Messages waiting in the queue, of all priorities."),
    _queue(
        "queue_length_by_priority",
        "The same by priority, where the broker has a list for each (Redis).",
        "priority",
    ),
    _queue(
        "queue_oldest_task_age_seconds",
        "For how long the oldest waiting task has waited; at least, where its message tells no "
        "time.",
    ),
    _queue("active_consumer_count", "Consumers of the queue, where the broker tells (RabbitMQ)."),
    _queue("active_worker_count", "Workers that consume the queue."),
    _queue("active_process_count", "Pool processes of the workers that consume the queue."),
    # What the agents cost
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
    # The exporter about itself
    _own(
        "build_info",
        "info",
        "Versions of the exporter and what it runs on.",
        "version",
        "python_version",
        "celery_version",
    ),
    _own("workers", "gauge", "Workers known now."),
    _own("source_up", "gauge", "1 while the source works: broker, queues, processes.", "source"),
    _own(
        "access_denied",
        "gauge",
        "1 while the kernel denies the process table: processes (hidepid hides them, and no worker "
        "is seen), shared_memory (PSS and USS of a worker's process).",
        "what",
    ),
    _own(
        "collect_duration_seconds",
        "gauge",
        "How long the last collection of a source took.",
        "source",
    ),
    _own(
        "reports_received_total", "counter", "Reports received from agents, refused ones included."
    ),
    _own("reports_rejected_total", "counter", "Reports refused, by why.", "reason"),
    _own("events_received_total", "counter", "Events received, by group.", "group"),
    _own(
        "events_ignored_total",
        "counter",
        "Task events that could not be counted, by why: malformed, unknown_task, evicted, "
        "repeated.",
        "reason",
    ),
    _own(
        "events_lost_total",
        "counter",
        "Tasks that a worker without an agent started, by its own count, and whose events did not "
        "get here; at least.",
        "worker",
    ),
    _own(
        "tasks_in_flight",
        "gauge",
        "Tasks of workers without an agent that are remembered until they are done.",
    ),
    _own(
        "event_lag_seconds",
        "gauge",
        "Age of the last event when it was handled, by its sender's clock.",
    ),
    _own("broker_reconnects_total", "counter", "Connections to the broker that were lost."),
    _own(
        "series_dropped_total",
        "counter",
        "What a cap kept from becoming series, by the family that has the cap.",
        "family",
    ),
)

BY_NAME: dict[str, Family] = {family.name: family for family in FAMILIES}

#: Where several workers are shown as one (``worker_groups``), their values are added up, but of
#: these the highest is shown: a limit is each one's own, and so is what is compared with it.
HIGHEST = frozenset(
    {
        "celery_worker_info",
        "celery_worker_up",
        "celery_worker_memory_peak_rss_bytes",
        "celery_worker_open_fds",
        "celery_worker_max_fds",
        "celery_worker_threads",
        "celery_worker_cgroup_memory_limit_bytes",
        "celery_worker_cgroup_memory_usage_bytes",
        "celery_worker_cgroup_memory_working_set_bytes",
        "celery_worker_child_memory_limit_bytes",
        "celery_task_retained_objects",
        "celery_task_retained_site_bytes",
        "celery_task_running_oldest_seconds",
        "celery_task_memory_estimate_bytes",
        "celery_task_memory_estimate_error_bytes",
        "celery_leak_suspect",
        "celery_leak_bytes_per_run",
    }
)
#: Counters of single processes, which end with them: left out of a group, where their sum would
#: fall.
NOT_TOGETHER = frozenset(
    {"celery_worker_gc_collections_total", "celery_memory_exporter_events_lost_total"}
)
