"""What an audited run costs beyond an unaudited one, on heaps of several sizes.

``audit_cost`` is the one function that knows how a run is audited.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter.calibration import calibrated_meter
from celery_memory_exporter.agent.meter.conditions import Conditions
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.readings import Readings
from tests.bench.heap import filled, in_fresh_process
from tests.bench.result import Options, Part, Row

EXTRA_OBJECTS = (0, 100_000, 1_000_000)
WARM_UP_RUNS = 20


def audit_cost(runs: int) -> dict[str, list[float]]:
    """Microseconds of each run: with the meter's readings only, and audited. They take turns: a
    slow moment hits both."""
    # Live blocks are read in every run, which the meter would not do on a large heap: else the two
    # would differ by that too.
    plain, auditing = (
        calibrated_meter(Guard(), Readings(), Conditions(200, audits=audits))
        for audits in (False, True)
    )
    auditing.auditor.budget = Budget(share=0.0, credit=1e6)

    def traced(meter: Meter) -> Callable[..., Any]:
        return measured(meter, "bench", lambda *_: trace_ok_t(None, None, 0.25, repr(time.time())))

    unaudited, audited = traced(plain), traced(auditing)

    def each_one_audited() -> None:
        for grown in auditing.totals.growth.values():
            grown.next_audit = 0

    pairs = []
    for _ in range(WARM_UP_RUNS + runs):
        each_one_audited()
        pairs.append(
            tuple(
                microseconds(lambda trace=trace: trace("uuid", (), {}, {}))
                for trace in (unaudited, audited)
            )
        )
    assert auditing.auditor.audits == WARM_UP_RUNS + runs
    return {
        "unaudited": [pair[0] for pair in pairs[WARM_UP_RUNS:]],
        "audited": [pair[1] for pair in pairs[WARM_UP_RUNS:]],
    }


def microseconds(call: Callable[[], None]) -> float:
    begun = time.perf_counter()
    call()
    return 1e6 * (time.perf_counter() - begun)


def figures(runs: int, objects: int) -> dict[str, Any]:
    heap = filled(objects)
    return {"objects": len(gc.get_objects()), **audit_cost(runs), "extra": len(heap)}


def measure(options: Options) -> list[Row]:
    rows = []
    for extra in EXTRA_OBJECTS[:1] if options.least else EXTRA_OBJECTS:
        options.progress.tell(f"audit: with {extra:,} extra objects")
        found = in_fresh_process(__name__, options.rounds, extra)
        plain = statistics.median(found["unaudited"])
        beyond = [
            audited - unaudited
            for unaudited, audited in zip(found["unaudited"], found["audited"], strict=True)
        ]
        cost = statistics.median(beyond)
        figure = (
            f"{cost:,.1f} µs beyond the {plain:,.0f} µs of an unaudited run; worst "
            f"{max(beyond):,.0f} µs"
        )
        rows.append(
            Row(
                f"{extra:,} extra objects ({found['objects']:,} in all)",
                figure,
                f"{(plain + cost) / plain:.1f} × unaudited",
            )
        )
    return rows


PART = Part(
    "cost of an audited run beyond an unaudited one, by the size of the heap", measure, rounds=200
)

if __name__ == "__main__":
    print(json.dumps(figures(*map(int, sys.argv[1:]))))
