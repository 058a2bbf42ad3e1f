"""What can be set about the agent: environment variables, because that is what reaches a worker without code.

A bad value is never fatal in somebody's worker: it is logged and the default stays.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

PREFIX = "CELERY_MEMORY_"


def seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 86_400:
        raise ValueError("seconds between 0.1 and 86400")
    return value


def count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 10_000:
        raise ValueError("an integer between 1 and 10000")
    return value


def switch(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in values:
        raise ValueError("one of 1, 0, true, false, yes, no, on, off")
    return values[text.lower()]


def setting(default: Any, parse: Callable[[str], Any], doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse, "doc": doc})


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is read from ``CELERY_MEMORY_<FIELD IN CAPITALS>``; its ``doc`` is what README prints."""

    enabled: bool = setting(True, switch, "`0` leaves the worker exactly as it is without the agent")
    interval_seconds: float = setting(15.0, seconds, "time between two reports of a worker")
    events_url: str | None = setting(
        None, str, "kombu URL that reports are sent to, where the worker's own broker has no fanout (SQS)"
    )
    census_seconds: float = setting(15.0, seconds, "least time between two counts of the objects of a busy process")
    census_pause_seconds: float = setting(
        0.02, float, "longest pause of a process by one count; on larger heaps every k-th object is counted"
    )
    max_tasks: int = setting(200, count, "task types (and queues) told apart; the rest is summed as `other`")
    max_object_types: int = setting(20, count, "object types reported, by growth")

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
                logger.warning("%s=%r is ignored, %r is used: %s", name, text, field.default, error)
        return Settings(**values)
