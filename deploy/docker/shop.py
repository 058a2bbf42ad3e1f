"""The application of the compose stack: a task that leaks, its repaired twin, and a client
(``python shop.py``) that sends both."""

from __future__ import annotations

import itertools
import os
import time
from functools import lru_cache

from celery import Celery

app = Celery("shop", broker=os.environ["BROKER_URL"])
app.conf.update(
    task_ignore_result=True, broker_connection_retry_on_startup=True, task_send_sent_event=True
)

#: One entry a run, for ever: the leak.
_invoices: dict[int, str] = {}


def render(number: int) -> str:
    return "\n".join(f"{number}: line {line}" for line in range(200))


@lru_cache(maxsize=50)
def bounded(number: int) -> str:
    """The repair."""
    return render(number)


@app.task(name="shop.render_invoice")
def render_invoice(number: int) -> int:
    _invoices[number] = render(number)
    return len(_invoices[number])


@app.task(name="shop.render_receipt")
def render_receipt(number: int) -> int:
    return len(bounded(number))


def send(per_second: float = 10.0) -> None:
    for number in itertools.count():
        render_invoice.delay(number)
        render_receipt.delay(number)
        time.sleep(1 / per_second)


if __name__ == "__main__":
    send()
