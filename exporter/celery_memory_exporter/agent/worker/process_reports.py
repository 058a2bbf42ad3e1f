"""What is told of one process of the worker: its own figures, what ``/proc`` says of it, and its
past."""

from __future__ import annotations

import time

from celery_memory_exporter.agent.worker.ledger import Account
from celery_memory_exporter.common import procfs
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES, ProcessReport


def age(entry: tuple[int, Account]) -> int:
    return entry[1].start_ticks or 0


def process_report(name: str, pid: int, account: Account) -> ProcessReport:
    """What the process told of itself, and what ``/proc`` tells of it now."""
    status = procfs.status(pid)
    figures = dict(account.figures)
    if status is not None:
        figures |= {
            "rss_bytes": status.rss_bytes,
            "anon_bytes": status.anon_bytes,
            "shmem_bytes": status.shmem_bytes,
            "swap_bytes": status.swap_bytes,
            "threads": status.threads,
            "peak_rss_bytes": max(figures.get("peak_rss_bytes") or 0, status.peak_rss_bytes or 0)
            or None,
        }
    open_fds = procfs.open_fds(pid)
    live = (figures.get("python_blocks") or 0) * MEAN_BLOCK_BYTES + (
        figures.get("native_live_bytes") or 0
    )
    if status is not None and figures.get("python_blocks"):
        point = (
            status.rss_bytes,
            status.anon_bytes,
            live,
            figures.get("native_free_bytes"),
            open_fds,
            status.threads,
        )
        account.history.add(
            [round(time.monotonic() - account.since, 1), *(float(value or 0) for value in point)]
        )
    return ProcessReport(
        process=name,
        pid=pid,
        start_ticks=account.start_ticks,
        history=account.history.points,
        open_fds=open_fds,
        max_fds=procfs.max_fds(pid),
        zombies=procfs.zombies(pid),
        **figures,
    )
