"""The application that the integration tests' workers run."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import Any

from celery import Celery
from celery.exceptions import Reject

app = Celery(
    "tasks", broker=os.environ["TEST_BROKER_URL"], backend=os.environ.get("TEST_BACKEND_URL")
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result="TEST_BACKEND_URL" not in os.environ,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    # Celery kills a new child that has not come up within 4 s; on a crowded machine that is soon.
    worker_proc_alive_timeout=600,
    broker_transport_options={"visibility_timeout": 3600},
)
# Thousands of tasks need not be logged one by one.
for logger in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(logger).setLevel(os.environ.get("TEST_TASK_LOG", "NOTSET"))

CACHE: dict[int, Any] = {}
KEPT: list[object] = []


class MyCacheEntry:
    """What the leaking task leaves behind."""

    def __init__(self, value: int) -> None:
        self.value = value


@app.task
def noop(number: int = 0) -> int:
    return number


@app.task
def leak(number: int) -> None:
    CACHE[len(CACHE)] = MyCacheEntry(number)


@app.task
def keep_twenty() -> None:
    KEPT.extend([object() for _ in range(20)])


@app.task
def keep_bytes(size: int) -> None:
    KEPT.append(b"x" * size)


@app.task
def big_result() -> list[str]:
    return ["x" * 100 + str(number) for number in range(70_000)]


@app.task
def big_argument(rows: list[str]) -> int:
    return len(rows)


@app.task
def fail() -> None:
    raise ValueError("as asked")


@app.task(bind=True, max_retries=1)
def retry_once(self: Any) -> None:
    if self.request.retries == 0:
        raise self.retry(countdown=0)


@app.task(acks_late=True)
def reject() -> None:
    raise Reject("as asked", requeue=False)


@app.task
def too_late() -> None:
    """Is sent expired."""


@app.task
def unwanted() -> None:
    """Is revoked before it is sent."""


@app.task
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@app.task
def overrun() -> None:
    """Runs into its time limit."""
    time.sleep(600)


@app.task
def write_down(path: str, number: int) -> None:
    """In a ledger that outlives everybody."""
    with open(path, "a") as ledger:
        ledger.write(f"{number}\n")


@app.task
def die() -> None:
    """As the kernel's OOM killer does it."""
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def spike(mebibytes: int) -> int:
    """Needs memory for a moment."""
    return len(bytearray(mebibytes * 1024 * 1024))


@app.task
def fork_twice() -> int:
    """A task that forks, as libraries do; the threads that it finds in its process are counted."""
    threads = len(os.listdir("/proc/self/task"))
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return threads


@app.task
def close_all_descriptors() -> None:
    """What daemonizing libraries do: everything above standard error but the pool's own pipes."""
    from billiard import current_process

    worker = current_process()._target
    pool = (
        {worker.inq._reader.fileno(), worker.outq._writer.fileno()} if worker is not None else set()
    )
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if (
            number > 2
            and number not in pool
            and "pipe" in (os.path.realpath(f"/proc/self/fd/{number}"))
        ):
            os.close(number)
