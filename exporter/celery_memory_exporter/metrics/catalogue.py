"""Every metric family, defined once: name, type, labels, what it says and where it comes from.

README, dashboards and rules are tested against this list. Names follow danihodovic/celery-exporter
where it has the family, so that its dashboards go on working; ``worker`` (the full nodename) is
extra. ``process`` is ``main`` or the pool slot, never a pid. With several brokers, all but the
exporter's own families have the label ``broker`` as well.
"""

from __future__ import annotations

from celery_memory_exporter.metrics.families.exporter import EXPORTER
from celery_memory_exporter.metrics.families.family import Family
from celery_memory_exporter.metrics.families.queues import QUEUES
from celery_memory_exporter.metrics.families.tasks import MEMORY, TRAFFIC, VERDICTS
from celery_memory_exporter.metrics.families.workers import AGENTS, WORKERS

#: In the order in which they are exposed.
FAMILIES: tuple[Family, ...] = (
    *WORKERS,
    *MEMORY,
    *VERDICTS,
    *TRAFFIC,
    *QUEUES,
    *AGENTS,
    *EXPORTER,
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
