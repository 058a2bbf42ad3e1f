"""What a task of the application does and observes, registered by the module that it stands in.

Neither the application nor Celery's configuration is needed here: the test, which sends the tasks,
reads the same register as the worker, which runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: What each run leaves behind beside what it observes, so that every kind of audit meets every
#: behaviour: nothing; an object, which ``tracemalloc`` is asked about; a descriptor, for which
#: lines are watched; nothing but an old object with cycles that it replaces, which only audits with
#: full collections tell apart.
FLAVOURS = ("steady", "objects", "descriptors", "replaced")
POOLS = ("prefork", "solo", "threads", "gevent", "eventlet")
GREENLETS = ("gevent", "eventlet")
#: Runs of each behaviour and flavour go in pairs, the second right after the first.
PAIRS = 12


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a behaviour. ``memory`` is of its type and stays from run to run."""

    task: Any
    number: int
    memory: dict[str, Any]
    payload: list[int]

    @property
    def first(self) -> bool:
        """The first one of its pair."""
        return self.number % 2 == 0


Observation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Behaviour:
    name: str
    observe: Callable[[Run], Any]
    pairs: int
    flavours: tuple[str, ...]
    pools: tuple[str, ...]
    #: The second run of a pair looks at what the first has done, so no other may come between.
    spans: bool
    #: Whether its runs have a result at all.
    answers: bool
    #: Tasks that each run sends, whose ids are of ``id_of_sent``.
    sends: int
    #: Of the Celery task.
    options: dict[str, Any] = field(default_factory=dict)

    def task_name(self, flavour: str) -> str:
        return f"differential.{self.name}.{flavour}"


REGISTER: dict[str, Behaviour] = {}


def behaviour(
    *,
    spans: bool = False,
    pairs: int = PAIRS,
    flavours: tuple[str, ...] = FLAVOURS,
    pools: tuple[str, ...] = POOLS,
    answers: bool = True,
    sends: int = 0,
    **options: Any,
) -> Callable[[Callable[[Run], Any]], Callable[[Run], Any]]:
    def register(observe: Callable[[Run], Any]) -> Callable[[Run], Any]:
        name = f"{observe.__module__.rpartition('.')[2]}.{observe.__name__}"
        REGISTER[name] = Behaviour(
            name, observe, pairs, flavours, pools, spans, answers, sends, options
        )
        return observe

    return register


def id_of_sent(task_id: str, number: int) -> str:
    return f"{task_id}.{number}"


def of_module(module: str) -> list[Behaviour]:
    return [each for name, each in REGISTER.items() if name.partition(".")[0] == module]
