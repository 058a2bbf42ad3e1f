"""What can be set about the agent: environment variables, because that is what reaches a worker
without code.

A bad value is never fatal in somebody's worker: it is logged and the default stays.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery_memory_exporter.common.traffic import (
    MAX_BUCKETS,
    QUEUE_WAIT_SECONDS,
    RUNTIME_SECONDS,
    are_bounds,
)
from celery_memory_exporter.common.urls import passwords

logger = logging.getLogger(__name__)

PREFIX = "CELERY_MEMORY_"


def seconds(text: str) -> float:
    value = float(text)
    if not 0.001 <= value <= 86_400:
        raise ValueError("seconds between 0.001 and 86400")
    return value


def count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10_000:
        raise ValueError("an integer between 1 and 10000")
    return value


def objects(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 10**9:
        raise ValueError("an integer between 0 and 1000000000")
    return value


def url(text: str) -> str:
    try:
        passwords(text)
    except ValueError:
        raise ValueError("a URL; a / or # in its password has to be percent-encoded") from None
    return text


def names(text: str) -> tuple[str, ...]:
    found = tuple(name for each in text.split(",") if (name := each.strip()))
    if not all(part.isidentifier() for name in found for part in name.split(".")):
        raise ValueError("names of packages, with commas between them")
    return found


def buckets(text: str) -> tuple[float, ...]:
    bounds = tuple(map(float, text.split(",")))
    if not are_bounds(bounds):
        raise ValueError(
            f"up to {MAX_BUCKETS} ascending upper bounds in seconds, above zero, with commas "
            "between them"
        )
    return bounds


def switch(text: str) -> bool:
    values = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if text.lower() not in values:
        raise ValueError("one of 1, 0, true, false, yes, no, on, off")
    return values[text.lower()]


def setting(default: Any, parse: Callable[[str], Any], doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse, "doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is read from ``CELERY_MEMORY_<FIELD IN CAPITALS>``; its ``doc`` is what README
    prints."""

    enabled: bool = setting(
        True, switch, "`0` leaves the worker exactly as it is without the agent"
    )
    interval_seconds: float = setting(15.0, seconds, "time between two reports of a worker")
    events_url: str | None = setting(
        None,
        url,
        "kombu URL that reports are sent to, where the worker's own broker has no fanout (SQS)",
    )
    census_seconds: float = setting(
        15.0, seconds, "least time between two counts of the objects of a busy process"
    )
    census_pause_seconds: float = setting(
        0.016,
        seconds,
        "longest pause of a process by one count; on larger heaps every k-th object is counted",
    )
    census_max_objects: int = setting(
        200_000,
        objects,
        "objects in the main process up to which its children are counted from their start on, `0` "
        "for never: counting makes a child's own copies of shared pages, some 62 MiB for a million "
        "objects; beyond, a child is counted once its collector has been through all of them",
    )
    audits: bool = setting(
        True,
        switch,
        "`0` leaves the garbage collector alone: no audited runs, so no survivors, holders or "
        "lines, and a slower verdict",
    )
    max_tasks: int = setting(
        200, count, "task types (and queues) told apart; the rest is summed as `other`"
    )
    state_dir: str | None = setting(
        None,
        str,
        "where a worker keeps what it counted, in a folder that only its user can read: if it is "
        "killed, the next worker of its name tells; the temporary directory by default",
    )
    application: tuple[str, ...] | None = setting(
        None,
        names,
        "installed packages that are the application's, with commas between them, beside those "
        "that define its tasks or that its settings name: their lines and containers come first",
    )
    max_object_types: int = setting(20, count, "object types reported, by growth")
    runtime_buckets: tuple[float, ...] = setting(
        tuple(RUNTIME_SECONDS),
        buckets,
        "upper bounds of `celery_task_runtime`, in seconds, with commas between them",
    )
    queue_wait_buckets: tuple[float, ...] = setting(
        tuple(QUEUE_WAIT_SECONDS), buckets, "the same of `celery_task_queue_wait_time`"
    )

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
        values = {}
        for field in dataclasses.fields(Settings):
            name = PREFIX + field.name.upper()
            text = environment.get(name, "").strip()
            if not text:
                continue
            try:
                values[field.name] = field.metadata["parse"](text)
            except ValueError as error:
                # The value is not shown: it may be a URL with its password.
                logger.warning(
                    "%s is ignored, %r is used; allowed is %s", name, field.default, error
                )
        return Settings(**values)
