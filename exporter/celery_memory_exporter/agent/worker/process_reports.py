"""The report on one process of the worker: its own figures, what ``/proc`` says of it, and its
past."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from celery_memory_exporter.agent.worker.figures import OwnFigures
from celery_memory_exporter.agent.worker.ledger import ProcessTotals
from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.kernel import Status
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES, ProcessReport

#: What the kernel tells under the report's own names.
FROM_STATUS = {each.name for each in dataclasses.fields(Status)} & {
    each.name for each in dataclasses.fields(ProcessReport)
}
#: What the process itself tells, likewise.
OWN = [each.name for each in dataclasses.fields(OwnFigures)]


def age(entry: tuple[int, ProcessTotals]) -> int:
    """Rises with the time at which a process started, to sort processes by."""
    return entry[1].start_ticks or 0


def process_report(name: str, pid: int, process: ProcessTotals) -> ProcessReport:
    """The figures that the process sent, and those that ``/proc`` has of it now, which also become
    a point of its history."""
    status = procfs.status(pid)
    open_fds = procfs.open_fds(pid)
    if status is not None and process.figures.python_blocks:
        process.history.add(
            [
                round(time.monotonic() - process.since, 1),
                *_point(status, process.figures, open_fds),
                round(process.retained_bytes),
            ]
        )
    return ProcessReport(
        process=name,
        pid=pid,
        start_ticks=process.start_ticks,
        history=[point[:-1] for point in process.history.points],
        retained_history=[point[-1] for point in process.history.points],
        open_fds=open_fds,
        max_fds=procfs.max_fds(pid),
        zombies=procfs.zombies(pid),
        **_figures(process.figures, status),
    )


def _figures(own: OwnFigures, status: Status | None) -> dict[str, Any]:
    figures = {name: getattr(own, name) for name in OWN}
    if status is not None:
        figures |= {name: getattr(status, name) for name in FROM_STATUS}
        # The agent starts the kernel's mark anew for runs; the process knows its whole life's.
        peaks = own.peak_rss_bytes or 0, status.peak_rss_bytes or 0
        figures["peak_rss_bytes"] = max(peaks) or None
    return figures


def _point(status: Status, own: OwnFigures, open_fds: int | None) -> list[float]:
    """As ``report.HISTORY`` names the figures, from the second one on."""
    live = (own.python_blocks or 0) * MEAN_BLOCK_BYTES + (own.native_live_bytes or 0)
    figures = (
        *(status.rss_bytes, status.anon_bytes),
        *(live, own.native_free_bytes),
        *(open_fds, status.threads),
    )
    return [float(figure or 0) for figure in figures]
