"""The report on what is known of one task type."""

from __future__ import annotations

from celery_memory_exporter.agent.stats.profile import tenth
from celery_memory_exporter.agent.worker.evidence import UNBOUNDED, TaskEvidence, top
from celery_memory_exporter.agent.worker.records import Holding
from celery_memory_exporter.common.evidence import Estimate, Evidence, Fill, Holder, Profile, Site


def to_evidence(
    known: TaskEvidence,
    profile: Profile,
    seconds: float,
    overlapping: Estimate | None,
    tmpfs: Estimate | None,
) -> Evidence:
    """For the report. ``profile`` is what the row is told as, ``seconds``: since the worker first
    ran the type; the estimates are by least squares."""
    row, fastest = known.row, known.fastest()
    return Evidence(
        profile=profile,
        processes=round(known.processes_measured, 2),
        growing=round(known.processes_growing, 2),
        failed_audits=tenth(row.failed_audits),
        failed_bytes=tenth(row.failed_bytes),
        seconds=tenth(seconds),
        survivors={name: round(count) for name, count in top(known.survivors).items()},
        sites=[
            Site(site, figure, tenth(amount)) for (figure, site), amount in top(known.sites).items()
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
    return Holder(path, held.kind, round(held.items), tenth(held.growth), limit)


def _fill(path: str, ages: list[tuple[float, float]]) -> Fill:
    return Fill(path, [tenth(gained) for gained, _ in ages], [tenth(runs) for _, runs in ages])
