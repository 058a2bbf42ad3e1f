"""Which lines allocated what a run left behind, as ``tracemalloc`` saw it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

from celery_memory_exporter.agent.application import is_application, is_own
from celery_memory_exporter.agent.audit.sites import site_of

#: File and line, as ``tracemalloc`` has them.
Frame = tuple[str, int]


def bytes_by_site(traces: Iterable[tuple[list[Frame], int]]) -> tuple[dict[str, float], bool]:
    """Bytes by site, and whether these are the application's own: its innermost lines, else
    libraries', never ours. ``traces``: frames, the innermost first, and bytes.

    Without a line of the application it is most likely what the worker keeps of each run until the
    next one.
    """
    own: dict[str, float] = {}
    libraries: dict[str, float] = {}
    for frames, size in traces:
        if is_tracing(frames[0]):
            continue
        line = next(filter(is_applications, frames), None)
        by_site = libraries if line is None else own
        site = site_of(*(line or frames[0]))
        by_site[site] = by_site.get(site, 0.0) + size
    return (own, True) if own else (libraries, False)


def traces_of(snapshot: tracemalloc.Snapshot) -> Iterable[tuple[list[Frame], int]]:
    """What was allocated by the same frames in the same order, as one."""
    for statistic in snapshot.statistics("traceback"):
        frames = [(frame.filename, frame.lineno) for frame in reversed(statistic.traceback)]
        yield frames, statistic.size


def is_tracing(frame: Frame) -> bool:
    """Whether this is a line of whoever traces: ours, or ``tracemalloc``'s."""
    return is_own(frame[0]) or frame[0] == tracemalloc.__file__


def is_applications(frame: Frame) -> bool:
    """Whether this is a line that a reader can look up."""
    return is_application(frame[0]) and not frame[0].startswith("<")
