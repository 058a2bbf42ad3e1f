"""What outlived an audited run: the collector's middle generation, right after its closing.

No list of these objects is held while another thread may run (see ``census``): types are counted,
and the few objects that a holder is looked for are chosen, within one call into C each.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from itertools import compress, tee
from typing import Any

from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.audit.collector import MIDDLE
from celery_memory_exporter.agent.heap import census

TYPES_PER_AUDIT = 20
#: Objects that a holder is looked for.
FEW = 5
#: Another thread may be making a tuple: it must not have a second reference. The answer is ours.
UNFINISHED = (tuple, trace_ok_t)


def by_type(answer: Any) -> dict[str, int]:
    """The most frequent types and how many of each, without the run's answer itself."""
    own = [type(part) for part in (answer, answer.retval, answer.info) if gc.is_tracked(part)]
    found: dict[str, int] = {}
    for kind, count in census.count_types_of(MIDDLE)[:TYPES_PER_AUDIT]:
        left = count - sum(each is kind for each in own)
        if left > 0:
            name = census.type_name(kind)[: census.MAX_NAME_LENGTH]
            found[name] = found.get(name, 0) + left
    return found


def telling() -> list[Any]:
    """Some of them to look for a holder of: instances of the application's or a library's classes;
    else of whatever is there."""
    there = (kind for kind, _ in census.count_types_of(MIDDLE))
    kinds = {id(kind): kind for kind in there if not any(kind is each for each in UNFINISHED)}
    own = {each for each, kind in kinds.items() if "." in census.type_name(kind)}
    return _some(own) or _some(set(kinds))


def _some(kinds: set[int]) -> list[Any]:
    return list(deque(_of(kinds), maxlen=FEW))


def _of(kinds: set[int]) -> Iterator[Any]:
    """``kinds`` are identities: a metaclass may have a hash of its own. Nothing is listed before
    the first one is asked for, and no variable keeps the list."""
    each, same = tee(census.listed(MIDDLE))
    return compress(each, map(kinds.__contains__, map(id, map(type, same))))
