"""The demo's load: tasks at a steady rate, as a web application would send them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from celery_memory_exporter.sources.poller import Attempt, Poller

#: Tasks a second, and how many may wait: the load never piles up.
LOAD_PER_SECOND = 30.0
MAX_WAITING = 20
#: Two for each order, and one greeting.
TASKS_PER_ROUND = 3
#: In every so many rounds there is a batch as well.
BATCH_EVERY = 5
BATCH_ROWS = 20_000


class Load:
    """Sends a round of tasks unless too many wait. ``send`` gets a task's name and argument."""

    def __init__(self, waiting: Callable[[], int], send: Callable[[str, object], None]) -> None:
        self._waiting = waiting
        self._send = send
        self._rounds = 0

    def round(self) -> None:
        if self._waiting() >= MAX_WAITING:
            return
        self._rounds += 1
        self._send("process_and_cache_data", f"order-{self._rounds}")
        self._send("process_and_cache_data_bounded", f"order-{self._rounds}")
        self._send("send_greeting", f"customer {self._rounds}")
        if self._rounds % BATCH_EVERY == 0:
            self._send("process_batch", BATCH_ROWS)


@contextlib.contextmanager
def running(messages: Path) -> Iterator[None]:
    """Sends tasks from a thread; ``messages`` is the folder in which they wait."""
    from celery_memory_exporter.demo import shop

    load = Load(
        waiting=lambda: sum(1 for _ in messages.iterdir()),
        send=lambda task, argument: getattr(shop, task).delay(argument),
    )
    poller = Poller("load", load.round, tell, interval=TASKS_PER_ROUND / LOAD_PER_SECOND)
    poller.start()
    try:
        yield
    finally:
        poller.stop()


def tell(attempt: Attempt) -> None:
    if attempt.error is not None and not attempt.again:
        print(f"No task can be sent: {attempt.error}", file=sys.stderr)
