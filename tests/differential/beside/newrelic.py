"""New Relic: transactions with their parts and errors, where its agent takes them over to add them
up. In its developer mode it talks to nobody."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from tests.differential.beside.records import Record

SETTINGS = {
    "NEW_RELIC_APP_NAME": "differential",
    "NEW_RELIC_LICENSE_KEY": "0" * 40,
    "NEW_RELIC_DEVELOPER_MODE": "true",
    # Until then transactions are dropped.
    "NEW_RELIC_STARTUP_TIMEOUT": "60",
    **{
        f"NEW_RELIC_UTILIZATION_DETECT_{each}": "false"
        for each in ("AWS", "AZURE", "DOCKER", "GCP", "KUBERNETES", "PCF")
    },
}


def start(tell: Callable[[Record], None]) -> None:
    os.environ.update(SETTINGS)
    import newrelic.agent

    def take(stats: Any, transaction: Any) -> None:
        for record in records_of(transaction):
            tell(record)

    newrelic.agent.initialize()
    newrelic.agent.wrap_pre_function(
        "newrelic.core.stats_engine", "StatsEngine.record_transaction", take
    )


def records_of(transaction: Any) -> Iterator[Record]:
    trace = transaction.trace_id
    errors = [[each.type, each.message, each.expected] for each in transaction.errors]
    what = [transaction.path, transaction.type, errors]
    yield Record(transaction.root.guid, transaction.parent_span, trace, what)
    yield from parts_of(transaction.root, trace)


def parts_of(node: Any, trace: str) -> Iterator[Record]:
    from newrelic.core.datastore_node import DatastoreNode

    for part in node.children:
        if isinstance(part, DatastoreNode):
            continue
        what = [type(part).__name__, getattr(part, "name", None), getattr(part, "operation", None)]
        yield Record(part.guid, node.guid, trace, what)
        yield from parts_of(part, trace)
