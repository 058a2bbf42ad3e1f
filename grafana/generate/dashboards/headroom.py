"""How near workers are to their memory limits, and how long their leaks leave them.

A worker has two limits: the pool's own for each child (``max_memory_per_child``), and its cgroup's.
"""

from __future__ import annotations

CHILDREN = 'celery_worker_memory_rss_bytes{$worker,process!="main"}'
CHILD_LIMIT = "celery_worker_child_memory_limit_bytes{$worker}"
USED = "celery_worker_cgroup_memory_working_set_bytes{$worker}"
LIMIT = "celery_worker_cgroup_memory_limit_bytes{$worker}"


def of_both_limits(of_children: str, of_cgroup: str) -> str:
    """What is told of either limit, each as a series of its own; ``or`` alone drops one."""
    return (
        f'label_replace({of_children}, "limit", "children", "", "") or '
        f'label_replace({of_cgroup}, "limit", "cgroup", "", "")'
    )


#: In use, of whichever limit is nearer.
CHILDREN_SHARE = f"max without (process) ({CHILDREN}) / {CHILD_LIMIT}"
LIMIT_SHARE = f"max by (worker) ({of_both_limits(CHILDREN_SHARE, f'{USED} / {LIMIT}')})"

#: Bytes up to the nearer limit.
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
