"""The application: a task for each behaviour and each flavour of it, and one that tells what the
agent has done.

Behaviours go one at a time, since what they look at belongs to the whole process. In a pool that
runs several tasks at once the others wait at the lock, so that to the agent all of them overlap.
"""

from __future__ import annotations

import logging
import os
import resource
import threading
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from tests.differential import behaviours, beside
from tests.differential.behaviour import REGISTER, Behaviour, Run

assert set(behaviours.__all__) == {name.partition(".")[0] for name in REGISTER}

beside.start_if(beside.BEFORE)
app = Celery(
    "differential", broker=os.environ["TEST_BROKER_URL"], backend=os.environ["TEST_BACKEND_URL"]
)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    worker_proc_alive_timeout=600,
    worker_prefetch_multiplier=100,
    broker_transport_options={"visibility_timeout": 3600},
)
for logger in ("celery.app.trace", "celery.worker.strategy"):
    logging.getLogger(logger).setLevel(logging.WARNING)
if os.environ.get("TEST_INSTALL"):
    from celery_memory_exporter.agent import install

    install(app)
beside.start_if(beside.AFTER)
worker_process_init.connect(lambda **_: beside.start_if(beside.IN_PROCESSES), weak=False)

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))

ALONE = threading.RLock()
KEPT: list[Any] = []
REPLACED: dict[str, Any] = {}


class Kept:
    """What a run of the flavour ``objects`` leaves behind."""

    def __init__(self) -> None:
        self.values = list(range(8))


class Knot:
    """An object with a cycle, for the flavour ``replaced``."""

    def __init__(self) -> None:
        self.itself = self
        self.values = [[number] for number in range(8)]


def leave(flavour: str, task: str) -> None:
    if flavour == "objects":
        KEPT.append(Kept())
    elif flavour == "descriptors":
        KEPT.append(os.open("/dev/null", os.O_RDONLY))
    elif flavour == "replaced":
        REPLACED[task] = Knot()


def make_task(behaviour: Behaviour, flavour: str) -> None:
    memory: dict[str, Any] = {}
    name = behaviour.task_name(flavour)

    def run(self: Any, number: int, payload: list[int]) -> Any:
        with ALONE:
            leave(flavour, name)
            return behaviour.observe(Run(self, number, memory, payload))

    app.task(bind=True, name=name, **behaviour.options)(run)


for each in REGISTER.values():
    for flavour in each.flavours:
        make_task(each, flavour)


@app.task(name="differential.nothing")
def nothing() -> None:
    """Fills up what a child has to run until it ends."""


@app.task(bind=True, name="differential.agent")
def agent(self: Any) -> dict[str, int] | None:
    """What the agent of this process has done so far; nothing without one."""
    cells = [cell.cell_contents for cell in self.__trace__.__closure__ or ()]
    meters = [each for each in cells if hasattr(each, "auditor")]
    if not meters:
        return None
    (meter,) = meters
    dossiers = list(meter.deep.dossiers.values())
    profiles = list(meter.totals.growth.values())
    return {
        "runs": meter.runs,
        "audits": meter.auditor.audits,
        "discarded": sum(meter.auditor.discarded.values()),
        "confirmations": sum(each.confirmations for each in profiles),
        "replaces": sum(bool(each.replaces) for each in profiles),
        "quiet": sum(bool(each.quiet) for each in profiles),
        "traced": sum(each.traced for each in dossiers),
        "watched": sum(each.watched for each in dossiers),
        "errors": meter.guard.errors,
    }
