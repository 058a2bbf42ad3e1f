"""Runs that end their process, or take its descriptors away; the last ones of a worker."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from typing import Any

from tests.differential.behaviour import Observation, Run, behaviour

PREFORK = ("prefork",)
FEW = 2


def pipes_of_the_pool() -> set[int]:
    from billiard import current_process

    worker: Any = current_process()._target  # type: ignore[attr-defined]
    if worker is None or not hasattr(worker, "inq"):
        return set()
    return {worker.inq._reader.fileno(), worker.outq._writer.fileno()}


@behaviour(pools=("prefork", "solo"), spans=True, pairs=6, flavours=("objects", "descriptors"))
def closed_descriptors(run: Run) -> Observation:
    """What daemonizing libraries do. The files that are opened next get the same numbers, and
    nobody else writes to them."""
    if run.first:
        pool = pipes_of_the_pool()
        for name in sorted(os.listdir("/proc/self/fd")):
            number = int(name)
            place = os.path.realpath(f"/proc/self/fd/{number}")
            ours = place.startswith("/proc/") or (bool(pool) and "pipe:" in place)
            if number > 2 and number not in pool and ours:
                try:
                    os.close(number)
                except OSError:  # that of ``listdir`` itself
                    continue
        folder = tempfile.gettempdir()
        new = os.O_RDWR | os.O_TMPFILE
        run.memory["files"] = [os.open(folder, new) for _ in range(12)]
        return {}
    seen = []
    for number in run.memory.pop("files"):
        seen.append([os.fstat(number).st_size, os.lseek(number, 0, os.SEEK_CUR)])
        os.close(number)
    return {"files": seen}


@behaviour(pools=PREFORK, pairs=FEW, flavours=("objects",))
def exits(run: Run) -> Observation:
    sys.exit(3)


@behaviour(pools=PREFORK, pairs=FEW, flavours=("objects",))
def exits_at_once(run: Run) -> Observation:
    os._exit(4)


@behaviour(pools=PREFORK, pairs=FEW, flavours=("objects",))
def is_killed(run: Run) -> Observation:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@behaviour(pools=PREFORK, pairs=FEW, flavours=("objects",))
def is_interrupted(run: Run) -> Observation:
    raise KeyboardInterrupt


@behaviour(pools=PREFORK, pairs=FEW, flavours=("objects",), time_limit=0.3)
def hard_time_limit(run: Run) -> Observation:
    time.sleep(60)
    return {}


@behaviour(pools=PREFORK, pairs=FEW)
def still_works(run: Run) -> Observation:
    return {"number": run.number}
