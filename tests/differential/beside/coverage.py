"""Coverage: the lines of the behaviours that ran in each process, from its start to its end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coverage
from celery.signals import worker_process_shutdown, worker_shutdown

from tests.differential.beside.records import Record

MEASURED = Path(__file__).parent.parent / "behaviours"


def start(tell: Callable[[Record], None]) -> None:
    """Children of the pool go on with what the main process has started."""
    measuring = coverage.Coverage(
        data_file=None,
        include=[f"{MEASURED}/*"],
        config_file=False,
        concurrency="gevent" if "gevent" in sys.modules else "thread",
    )

    @worker_process_shutdown.connect(weak=False)
    @worker_shutdown.connect(weak=False)
    def end(**_: Any) -> None:
        measuring.stop()
        data = measuring.get_data()
        for file in sorted(data.measured_files()):
            what = [Path(file).name, sorted(data.lines(file) or ())]
            tell(Record(file, None, "", what))

    measuring.start()
