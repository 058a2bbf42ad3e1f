"""What a case of the zoo is, and the application that all cases belong to.

Every case is one task with one mechanism. What a case claims (memory stays, or does not) was tried
by calling its body 200 times in a plain loop; the runner starts one worker for it and lets the
neighbours run beside it. Every task takes one argument, the number of the run, unless the case says
otherwise.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from celery import Celery

F = TypeVar("F", bound=Callable[..., Any])

app = Celery(
    "zoo", broker=os.environ.get("TEST_BROKER_URL"), backend=os.environ.get("TEST_BACKEND_URL")
)
app.conf.update(
    imports=("tests.zoo.neighbours", "tests.zoo.reported", "tests.zoo.others"),
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    # Celery kills a new child that has not come up within 4 s; on a crowded machine that is soon.
    worker_proc_alive_timeout=600,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_transport_options={"visibility_timeout": 7200},  # longer than the flood's eta
)

# --- what a case is ------------------------------------------------------------------------------

#: Runs of each neighbour for one run of the case.
BESIDE: Mapping[str, float] = {"noop": 1.0, "churn": 0.25, "dicts": 0.5, "bounded": 0.5}


@dataclass(frozen=True)
class Case:
    """One task, how it is run, and the answer that is right about it."""

    name: str
    #: Its full name; ``None`` where no task is to be named, only the process.
    task: str | None
    leaks: bool
    #: Growth classes that are right: of a suspect for a leak, of a cleared task for an innocent.
    #: Empty: not asked.
    classes: frozenset[str] = frozenset()
    #: One of these has to be in a holder's path, a site or an object type. Empty: the class is the
    #: explanation.
    explained_by: tuple[str, ...] = ()
    #: A site on one of these lines, as ``zoo/cases.py:42``, explains as well.
    lines: frozenset[str] = frozenset()
    pool: tuple[str, ...] = ("-c", "2")
    runs: int = 400
    per_second: float = 20.0
    beside: Mapping[str, float] = field(default_factory=lambda: BESIDE)
    argument: Callable[[int], Any] = int
    #: Needs a result backend.
    backend: bool = False
    #: Tasks that lie in the main process for longer than the case takes: the worker is killed at
    #: the end.
    eta_seconds: float | None = None

    @property
    def sent(self) -> str:
        """The task that is sent: where only the process grows, it is an innocent one."""
        return self.task or name_of("noop")


def name_of(neighbour: str) -> str:
    return f"tests.zoo.neighbours.{neighbour}"


CASES: dict[str, Case] = {}


def add(case: Case) -> None:
    assert case.name not in CASES
    CASES[case.name] = case


def lines_of(*parts: Any) -> frozenset[str]:
    """The lines of functions and classes."""
    spans = ((inspect.getfile(part), *inspect.getsourcelines(part)) for part in parts)
    return frozenset(
        f"zoo/{os.path.basename(file)}:{first + each}"
        for file, lines, first in spans
        for each in range(len(lines))
    )


def full_name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__name__}"


def leak(
    *classes: str, by: tuple[str, ...] = (), of: type | None = None, **options: Any
) -> Callable[[F], F]:
    """The function is a leak's body. ``by``: explaining names; ``of``: the class whose objects
    stay."""

    def register(function: F) -> F:
        names = (*by, *((of.__name__,) if of else ()))
        lines = lines_of(function, *((of,) if of else ())) if names else frozenset()
        add(
            Case(
                function.__name__,
                full_name(function),
                True,
                frozenset(classes),
                names,
                lines,
                **options,
            )
        )
        return function

    return register


def innocent(*classes: str, **options: Any) -> Callable[[F], F]:
    """The function is an innocent's body. ``classes``: what the growth it does show has to be
    called, if anything."""

    def register(function: F) -> F:
        add(Case(function.__name__, full_name(function), False, frozenset(classes), **options))
        return function

    return register
