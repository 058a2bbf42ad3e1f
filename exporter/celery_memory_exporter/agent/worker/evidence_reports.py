"""The report on what is known of one task type."""

from __future__ import annotations

from celery_memory_exporter.agent.worker.evidence import UNBOUNDED, TaskEvidence, top
from celery_memory_exporter.agent.worker.records import Holding
from celery_memory_exporter.common.evidence import Estimate, Evidence, Fill, Holder, Site


def to_evidence(
    known: TaskEvidence, seconds: float, overlapping: Estimate | None, tmpfs: Estimate | None
) -> Evidence:
    """For the report. ``seconds``: since the worker first ran the type; the estimates are by least
    squares."""
    row, fastest = known.row, known.fastest()
    return Evidence(
        profile=row.to_profile(),
        processes=round(known.processes_measured, 2),
        growing=round(known.processes_growing, 2),
        failed_audits=round(row.failed_audits, 1),
        failed_bytes=round(row.failed_bytes, 1),
        seconds=round(seconds, 1),
        survivors={name: round(count) for name, count in top(known.survivors).items()},
        sites=[
            Site(site, figure, round(amount, 1))
            for (figure, site), amount in top(known.sites).items()
        ],
        deep_audits=round(known.deep_audits),
        traced_audits=round(known.traced_audits),
        watched_audits=round(known.watched_audits),
        holders=[_holder(path, holding) for path, holding in fastest.items()],
        fills=[_fill(path, known.fills[path]) for path in fastest if known.fills.get(path)],
        paths=list(top(known.paths)),
        overlapping=overlapping,
        tmpfs=tmpfs,
    )


def _holder(path: str, held: Holding) -> Holder:
    limit = None if held.limit == UNBOUNDED else held.limit
    return Holder(path, held.kind, round(held.items), round(held.growth, 1), limit)


def _fill(path: str, ages: list[tuple[float, float]]) -> Fill:
    return Fill(
        path, [round(gained, 1) for gained, _ in ages], [round(runs, 1) for _, runs in ages]
    )
