"""The diagnosis for a terminal: values in, text out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from celery_memory_exporter.diagnosis.rules import CLASS_OF_COUNT
from celery_memory_exporter.diagnosis.verdict import (
    Cleared,
    Diagnosis,
    SiteRate,
    Suspect,
    WorkerVerdict,
)

#: Classes of growth that count in units of their own name, not in bytes.
COUNTED = frozenset(CLASS_OF_COUNT.values())
#: What a line's figure is when it is in bytes.
FIGURES_IN_BYTES = frozenset({"bytes", "native", "shared"})
#: Types, holders and lines named of each suspect.
NAMES = 3
NO_WORKER = """No worker tells what its runs leave behind. Start the workers with the agent:
  celery -A proj worker -I celery_memory_exporter.autoload"""


def as_text(diagnosis: Diagnosis) -> str:
    """Suspects first, worst first, then what was cleared, and each worker's time to its memory
    limit."""
    if not diagnosis.workers:
        return NO_WORKER
    lines = [headline(diagnosis)]
    for suspect in diagnosis.suspects:
        lines += ["", *suspect_lines(suspect)]
    lines += cleared_lines("Not leaking", [each for each in diagnosis.cleared if each.settled])
    lines += cleared_lines("Not known yet", diagnosis.unsettled)
    lines += limit_lines(diagnosis.workers)
    return "\n".join(lines)


def headline(diagnosis: Diagnosis) -> str:
    suspects, workers = diagnosis.suspects, diagnosis.workers
    count = f"{len(workers)} worker{'s' if len(workers) > 1 else ''}"
    if not suspects:
        unknown, types = len(diagnosis.unsettled), len(diagnosis.cleared)
        if not types:
            return f"Not known yet: no task has run in {count}."
        if unknown:
            return f"No leak found yet in {count}; {unknown} of {types} task types not known yet."
        return f"No leak found in {count}."
    leaking = sum(each.leaking for each in workers)
    return f"{len(suspects)} leak{'s' if len(suspects) > 1 else ''} in {leaking} of {count}"


def suspect_lines(suspect: Suspect) -> list[str]:
    what = suspect.task or f"process {suspect.process} (no task type explains it)"
    only = ", only when it fails" if suspect.outcome == "failed" else ""
    lines = [f"{what}   on {suspect.worker}", f"  retains    {amount(suspect)}{only}"]
    if suspect.runs:
        lines.append(
            f"  evidence   {' + '.join(suspect.growth_classes)}; {suspect.runs} runs, "
            f"{suspect.audited_runs} audited, {suspect.growing_processes} of "
            f"{suspect.processes} processes, confidence {suspect.confidence:.2f}"
        )
    if suspect.since is not None:
        lines.append(f"  since      {moment(suspect.since)}")
    if suspect.object_types:
        rates = [f"{each.type} {each.per_run:g} a run" for each in suspect.object_types[:NAMES]]
        lines.append(f"  leaves     {', '.join(rates)}")
    lines += [
        f"  held by    {holder.path} ({holder.kind}, {holder.items} items)"
        for holder in suspect.holders[:NAMES]
    ]
    if not suspect.holders:
        lines += [f"  held by    {path}" for path in suspect.paths[:1]]
    lines += [
        f"  made at    {site.site}  {site_amount(site)} a run" for site in suspect.sites[:NAMES]
    ]
    lines.append(f"  advice     {suspect.advice}")
    return lines


def cleared_lines(title: str, cleared: Sequence[Cleared]) -> list[str]:
    """Task types that do not leak, or of which that is not known yet, by name."""
    if not cleared:
        return []
    width = max(len(each.task) for each in cleared)
    return ["", title] + [
        f"  {each.task:<{width}}  {each.growth_class:<10} {each.reason} ({each.runs} runs)"
        + known_in(each)
        for each in sorted(cleared, key=lambda each: each.task)
    ]


def known_in(cleared: Cleared) -> str:
    """When what is not known yet will be, if that can be told."""
    seconds = cleared.known_in_seconds
    return "" if seconds is None else f"; some {duration(seconds)} more"


def limit_lines(workers: Sequence[WorkerVerdict]) -> list[str]:
    lines = [
        f"  {each.worker}  reached in {duration(each.seconds_to_limit)} at the present rate"
        for each in workers
        if each.seconds_to_limit is not None
    ]
    return ["", "Memory limit", *lines] if lines else []


def amount(suspect: Suspect) -> str:
    """What it leaves behind a run and an hour."""
    if suspect.growth_class in COUNTED:
        return f"{suspect.retained_count_per_run:g} {suspect.growth_class} a run"
    hourly = f"{size(suspect.retained_bytes_per_hour)} an hour"
    return f"{size(suspect.retained_bytes_per_run)} a run, {hourly}" if suspect.runs else hourly


def site_amount(site: SiteRate) -> str:
    if site.figure in FIGURES_IN_BYTES:
        return size(site.amount_per_run)
    return f"{site.amount_per_run:g} {site.figure}"


def size(count: float) -> str:
    """Bytes in the largest unit that they fill."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def moment(since: float) -> str:
    """Unix time, to the minute."""
    return datetime.fromtimestamp(since, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    """In the largest unit of which there are two."""
    for unit, factor in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds:.0f} seconds"
