"""Tasks that run beside each case and are never to be accused."""

from __future__ import annotations

from collections import OrderedDict

from tests.zoo.case import app

RECENT: OrderedDict[int, bytes] = OrderedDict()


@app.task
def noop(number: int) -> int:
    return number


@app.task
def churn(number: int) -> int:
    """30 MB of small lists, all freed."""
    return len([[each] for each in range(300_000)])


@app.task
def dicts(number: int) -> str:
    rows = [{"id": each, "name": f"name {each}"} for each in range(2_000)]
    return f"{len(rows)}".ljust(100_000)


@app.task
def bounded(number: int) -> int:
    RECENT[number] = bytes(5_000)
    while len(RECENT) > 40:
        RECENT.popitem(last=False)
    return len(RECENT)
