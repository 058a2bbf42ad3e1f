"""How much the fleet may hold and show. What is beyond a limit is counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The configuration's section ``limits``; ``config.settings`` says what each may be."""

    #: In the whole fleet.
    workers: int = 1_000
    tasks_per_worker: int = 200
    object_types_per_worker: int = 20
    exceptions_per_task: int = 50
    #: Per broker.
    queues: int = 200
    #: In the whole fleet: hostnames of clients that send tasks, where they are told apart.
    senders: int = 100
    #: In the whole fleet: tasks that were sent to or received by workers without an agent, and are
    #: not done.
    tasks_in_flight: int = 50_000
    #: Characters of a label's value. A nodename is never cut.
    label_length: int = 120
