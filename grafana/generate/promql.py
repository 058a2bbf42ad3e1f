"""PromQL that more than one alert needs, and the recording rules.

Series are aggregated by ``without``, so that whatever labels a target has (cluster, namespace, pod,
broker) stay on the alert. Gauges are compared by their lowest values in windows that follow each
other: a peak, a warm-up and a recycled child do not raise those.
"""

from __future__ import annotations

from grafana.generate.thresholds import FAILURE_WINDOW, LOW_WATER, Threshold

ANON = "worker:celery_worker_memory_anon_bytes:avg"
WORKING_SET = "worker:celery_worker_cgroup_memory_working_set_bytes:min"
FAILED = "name:celery_task_failed:increase"
SUCCEEDED = "name:celery_task_succeeded:increase"
LIMIT = "celery_worker_cgroup_memory_limit_bytes"
#: Of each worker that has the agent.
OVERHEAD = "celery_agent_overhead_seconds_total"

#: By name. Each is in more than one place of an alert, or has to be there before its window can be
#: looked at.
RECORDED = {
    # The mean of a worker's processes: it does not rise when an autoscaled pool starts more of
    # them.
    ANON: "avg without (process) (celery_worker_memory_anon_bytes)",
    WORKING_SET: f"min_over_time(celery_worker_cgroup_memory_working_set_bytes[{LOW_WATER}])",
    FAILED: "sum without (worker, hostname, queue_name, exception) "
    f"(increase(celery_task_failed_total[{FAILURE_WINDOW}]))",
    SUCCEEDED: "sum without (worker, hostname, queue_name) "
    f"(increase(celery_task_succeeded_total[{FAILURE_WINDOW}]))",
}


def rising(series: str, window: Threshold, step: Threshold) -> str:
    """Its lowest value rose by ``step`` from window to window, twice, and it was there before
    them."""
    number, unit = int(window.value[:-1]), window.value[-1]
    lowest = [
        f"min_over_time({series}[{window}]{f' offset {number * ago}{unit}' if ago else ''})"
        for ago in range(3)
    ]
    return f"""{lowest[0]}
    - {lowest[1]} > {step}
and
  {lowest[1]}
    - {lowest[2]} > {step}
and
  {series} offset {number * 3}{unit}"""


def limit_soon(window: Threshold, share: Threshold, seconds: Threshold) -> str:
    """Seconds until the memory limit on the line through the low-water marks, where all of them are
    above a share of it."""
    return f"""({LIMIT} - {WORKING_SET})
    / (deriv({WORKING_SET}[{window}]) > 0) < {seconds}
and
  min_over_time({WORKING_SET}[{window}]) > {share} * {LIMIT}
and
  {WORKING_SET} offset {window}"""


def counted(series: str, window: Threshold) -> str:
    """How often it was counted. ``increase`` does not see a labelled counter's first, with which
    the series begins: that is one where the worker's agent told of itself before, and not of
    this."""
    return f"""increase({series}[{window}]) > 0
or
  ({series} unless {series} offset {window})
  and on (cluster, namespace, job, instance, broker, worker) ({OVERHEAD} offset {window})"""
