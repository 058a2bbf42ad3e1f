"""The shop's Celery application: a few task types that leak, each in its own way, among healthy
ones."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import OrderedDict
from typing import Any

from celery import Celery

app = Celery("shop", broker=os.environ["SCENE_BROKER_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    task_send_sent_event=True,
    worker_prefetch_multiplier=2,
    # Celery kills a new child that has not come up within 4 s; on a crowded machine that is soon.
    worker_proc_alive_timeout=600,
    task_routes={
        "shop.images.*": {"queue": "images"},
        "shop.video.*": {"queue": "video"},
        "shop.legacy.*": {"queue": "legacy"},
        "shop.stock.*": {"queue": "stock"},
    },
)
#: Threads that wait for it end with the process.
_closing = threading.Event()


class Quote:
    """A price that was worked out once."""

    def __init__(self, order: int, lines: list[str]) -> None:
        self.order = order
        self.lines = lines


_quotes: dict[int, Quote] = {}
_thumbnails: list[bytearray] = []
_logs: list[Any] = []
_recent: OrderedDict[int, bytes] = OrderedDict()
_scratch: list[bytearray] = []


@app.task(name="shop.orders.price")
def price(order: int) -> None:
    """Leaks: each order's quote, by a key that never comes again."""
    _quotes[order] = Quote(order, [f"order {order}, line {number}" for number in range(80)])


@app.task(name="shop.images.resize")
def resize(image: int) -> None:
    """Leaks memory of the C heap: each thumbnail."""
    _thumbnails.append(bytearray(24_000 + image % 7))


@app.task(name="shop.mail.send")
def send(number: int) -> None:
    """Leaks a descriptor in one run of two."""
    if number % 2 and len(_logs) < 800:
        _logs.append(open("/dev/null"))  # noqa: SIM115  # left open is what it is for


@app.task(name="shop.search.index")
def index(number: int) -> None:
    """Leaks a thread in one run of four."""
    if number % 4 == 0 and threading.active_count() < 300:
        threading.Thread(target=_closing.wait, daemon=True).start()


@app.task(name="shop.carts.expire")
def expire(cart: int) -> None:
    """Keeps the newest 50: no leak."""
    _recent[cart] = bytes(2_000)
    while len(_recent) > 50:
        _recent.popitem(last=False)


@app.task(name="shop.reports.build")
def build(rows: int) -> int:
    """Needs much for a moment, and leaves holes in the C heap: no leak."""
    parts = [bytearray(3_000) for _ in range(rows)]
    _scratch[:] = parts[:: rows // 20]
    return len(parts)


@app.task(name="shop.payments.charge", bind=True, max_retries=1)
def charge(self: Any, number: int) -> None:
    """Fails now and then."""
    time.sleep(random.uniform(0.002, 0.02))
    if number % 9 == 0:
        raise self.retry(countdown=1)
    if number % 7 == 0:
        raise TimeoutError("the bank does not answer")
    if number % 11 == 0:
        raise ValueError("no such card")


@app.task(name="shop.stock.sync")
def sync(seconds: float) -> None:
    """Is slow: its queue grows."""
    time.sleep(seconds)


@app.task(name="shop.video.encode")
def encode(mebibytes: int) -> None:
    """Needs more than its cgroup has, at times."""
    block = bytearray(mebibytes * 1024 * 1024)
    block[::4096] = bytes(len(block[::4096]))


@app.task(name="shop.legacy.import")
def legacy_import(row: int) -> None:
    """Leaks, in a worker without an agent."""
    _thumbnails.append(bytearray(random.randrange(200_000, 400_000)))
    time.sleep(0.15)


@app.task(name="shop.legacy.ping")
def ping(number: int) -> int:
    time.sleep(0.15)
    return number
