"""What a tool captured, one line of a file each, and the trees that it makes.

Ids differ from run to run; what they tell does not: which thing is part of which, and whether both
have the same trace. So trees are compared, and no ids.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Ids of tasks, and of processes that send some.
ANY_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|gen\d+@[\w.-]+")


@dataclass(frozen=True, slots=True)
class Record:
    """A span, a transaction or an error. ``part_of`` is the id of another one, maybe of another
    process; ``what`` is all that has to be equal."""

    id: str
    part_of: str | None
    trace: str
    what: Any


def writer(file: str) -> Callable[[Record], None]:
    """Of many processes and threads, each line in one go."""

    def write(record: Record) -> None:
        line = json.dumps(asdict(record), default=repr) + "\n"
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(number, line.encode())
        finally:
            os.close(number)

    return write


def trees(file: Path, worker: str) -> Counter[str]:
    """How often each tree was captured. ``worker`` is the name of the one that was watched."""
    text = ANY_ID.sub("…", file.read_text().replace(worker, "worker"))
    records = [Record(**json.loads(line)) for line in text.splitlines()]
    known = {record.id for record in records}
    parts: dict[str | None, list[Record]] = defaultdict(list)
    for record in records:
        parts[record.part_of if record.part_of in known else None].append(record)
    return Counter(json.dumps(each) for each in _trees(parts[None], parts, None))


def _trees(
    records: Iterable[Record], parts: dict[str | None, list[Record]], trace: str | None
) -> list[Any]:
    found = [
        {
            "what": record.what,
            "same_trace": record.trace == trace,
            "lost": trace is None and record.part_of is not None,
            "parts": _trees(parts.get(record.id, ()), parts, record.trace),
        }
        for record in records
    ]
    return sorted(found, key=json.dumps)
