"""The application of the demo: one task that leaks, its repaired twin, and two that have nothing to
do with it.

A worker runs it like any other: nothing in here knows of the exporter. The broker is a folder
(kombu's filesystem transport), given by ``CELERY_MEMORY_DEMO_FOLDER``.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from pathlib import Path

from celery import Celery

from celery_memory_exporter.demo import folder

FOLDER = Path(os.environ.get("CELERY_MEMORY_DEMO_FOLDER", "."))
BROKER_URL = f"{folder.SCHEME}://"
folder.register()


def transport_options(path: Path) -> dict[str, object]:
    """Both ends read and write the same folder."""
    messages = str(path / "messages")
    return {
        "data_folder_in": messages,
        "data_folder_out": messages,
        "control_folder": str(path / "control"),
        "polling_interval": 0.05,
    }


app = Celery("shop", broker=BROKER_URL)
app.conf.update(
    broker_transport_options=transport_options(FOLDER),
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)


class MyCacheEntry:
    """A processed record, kept for the next time somebody asks."""

    def __init__(self, key: str, data: list[str]) -> None:
        self.key = key
        self.data = data
        self.created_at = time.time()


#: Grows by one entry with each run, for ever: the leak.
_my_app_cache: dict[str, MyCacheEntry] = {}

#: The same, bounded in number and in time.
_my_bounded_cache: OrderedDict[str, MyCacheEntry] = OrderedDict()
MAX_ENTRIES = 20
TTL_SECONDS = 30.0


def expensive(key: str) -> list[str]:
    """What the cache is meant to save."""
    return [f"{key}: line {number}" for number in range(100)]


@app.task  # type: ignore[untyped-decorator]
def process_and_cache_data(key: str) -> int:
    """Caches each result under a key that never comes again."""
    entry = _my_app_cache[key] = MyCacheEntry(key, expensive(key))
    return len(entry.data)


@app.task  # type: ignore[untyped-decorator]
def process_and_cache_data_bounded(key: str) -> int:
    """The repair: at most ``MAX_ENTRIES``, none older than ``TTL_SECONDS``."""
    entry = _my_bounded_cache[key] = MyCacheEntry(key, expensive(key))
    oldest_allowed = time.time() - TTL_SECONDS
    while (
        len(_my_bounded_cache) > MAX_ENTRIES
        or next(iter(_my_bounded_cache.values())).created_at < oldest_allowed
    ):
        _my_bounded_cache.popitem(last=False)
    return len(entry.data)


@app.task  # type: ignore[untyped-decorator]
def process_batch(rows: int) -> int:
    """Needs a lot of memory for a moment and gives it back."""
    batch = [{"row": number, "text": f"row {number}"} for number in range(rows)]
    return sum(len(str(row["text"])) for row in batch)


@app.task  # type: ignore[untyped-decorator]
def send_greeting(name: str) -> str:
    """Harmless."""
    return f"Hello, {name}!"
