"""Families of queues."""

from __future__ import annotations

from celery_memory_exporter.metrics.families.family import Family


def _queue(name: str, doc: str, *labels: str) -> Family:
    return Family(f"celery_{name}", "gauge", ("queue_name", *labels), doc)


QUEUES: tuple[Family, ...] = (
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
)
