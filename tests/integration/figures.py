"""What the exporter shows of a worker's tasks, and waiting for it."""

from __future__ import annotations

from tests.integration.exporter import Exporter
from tests.integration.waiting import at_least, equals, wait_for
from tests.integration.worker import Worker, name_of

ENTRY = "tests.integration.tasks.MyCacheEntry"
RSS = "celery_worker_memory_rss_bytes"


def of_task(worker: Worker, task: str) -> dict[str, str]:
    """The labels of its series."""
    return {"worker": worker.nodename, "name": name_of(task)}


def succeeded(exporter: Exporter, worker: Worker, task: str) -> float | None:
    return exporter.value("celery_task_succeeded_total", **of_task(worker, task))


def wait_for_runs(exporter: Exporter, worker: Worker, task: str, runs: int) -> None:
    """And no more of them."""
    seen = wait_for(
        lambda: succeeded(exporter, worker, task), f"{runs} runs of {task}", at_least(runs)
    )
    assert seen == runs


def wait_for_growth(exporter: Exporter, worker: Worker, entries: int) -> None:
    """By the true number."""
    labels = {"worker": worker.nodename, "object_type": ENTRY}
    wait_for(
        lambda: exporter.value("celery_worker_objects_growth", **labels),
        f"{entries} entries",
        equals(entries),
    )


def wait_for_processes(exporter: Exporter, worker: Worker, *names: str) -> None:
    """These and no others."""
    wait_for(
        lambda: {*exporter.by_label(RSS, "process", worker=worker.nodename)},
        f"the processes {names} of {worker.nodename}",
        equals({*names}),
    )


def wait_for_value(exporter: Exporter, wanted: float | None, name: str, /, **labels: str) -> None:
    """The sum of the samples with these labels is that."""
    wait_for(lambda: exporter.value(name, **labels), f"{name} {labels} {wanted}", equals(wanted))


def per_run(exporter: Exporter, worker: Worker, family: str, task: str, measured: int = 1) -> float:
    """The mean of what so many runs left behind, which processes tell once a second; of their first
    runs they do not."""
    runs_name, labels = "celery_task_memory_retained_runs", of_task(worker, task)

    def told() -> dict[str, float]:
        """In one answer."""
        samples = exporter.samples(family, runs_name)
        return {name: value for (name, has), value in samples.items() if labels.items() <= has}

    seen = wait_for(
        told,
        f"what {measured} runs of {task} left behind",
        lambda seen: seen.get(runs_name, 0) >= measured,
    )
    return seen[family] / seen[runs_name]


def no_agent_trouble(exporter: Exporter, worker: Worker) -> bool:
    return (
        exporter.value("celery_agent_errors_total", worker=worker.nodename) == 0
        and "memory agent failed" not in worker.text
    )
