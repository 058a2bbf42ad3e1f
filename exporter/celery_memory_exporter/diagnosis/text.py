"""The diagnosis for a terminal: plain values, as the API answers with them, in; text out."""

from __future__ import annotations

from typing import Any

UNITS = {"descriptors": "descriptors", "threads": "threads", "processes": "processes"}
NAMES = 3
NO_WORKER = """No worker tells what its runs leave behind. Start the workers with the agent:
  celery -A proj worker -I celery_memory_exporter.autoload"""


def as_text(diagnosis: dict[str, Any]) -> str:
    """Suspects first, worst first, then what was cleared, and each worker's time to its memory
    limit."""
    suspects, cleared, workers = diagnosis["suspects"], diagnosis["cleared"], diagnosis["workers"]
    if not workers:
        return NO_WORKER
    lines = [headline(suspects, workers)]
    for suspect in suspects:
        lines += ["", *suspect_lines(suspect)]
    if cleared:
        lines += ["", "Not leaking"]
        width = max(len(each["task"]) for each in cleared)
        ordered = sorted(
            cleared, key=lambda each: (each["growth_class"] == "unsettled", each["task"])
        )
        lines += [
            f"  {each['task']:<{width}}  {each['growth_class']:<10} {each['reason']} "
            f"({each['runs']} runs)"
            for each in ordered
        ]
    limits = [each for each in workers if each["seconds_to_limit"] is not None]
    if limits:
        lines += ["", "Memory limit"]
        lines += [
            f"  {each['worker']}  reached in {duration(each['seconds_to_limit'])} at the present "
            "rate"
            for each in limits
        ]
    return "\n".join(lines)


def headline(suspects: list[dict[str, Any]], workers: list[dict[str, Any]]) -> str:
    count = f"{len(workers)} worker{'s' if len(workers) > 1 else ''}"
    if not suspects:
        return f"No leak found in {count}."
    leaking = sum(each["leaking"] for each in workers)
    return f"{len(suspects)} leak{'s' if len(suspects) > 1 else ''} in {leaking} of {count}"


def suspect_lines(suspect: dict[str, Any]) -> list[str]:
    what = suspect["task"] or f"process {suspect['process']} (no task type explains it)"
    only = ", only when it fails" if suspect["outcome"] == "failed" else ""
    lines = [f"{what}   on {suspect['worker']}", f"  retains    {amount(suspect)}{only}"]
    if suspect["runs"]:
        lines.append(
            f"  evidence   {' + '.join(suspect['growth_classes'])}; {suspect['runs']} runs, "
            f"{suspect['audited_runs']} audited, {suspect['growing_processes']} of "
            f"{suspect['processes']} processes, confidence {suspect['confidence']:.2f}"
        )
    if suspect["object_types"]:
        lines.append(
            "  leaves     "
            + ", ".join(
                f"{each['type']} {each['per_run']:g} a run"
                for each in suspect["object_types"][:NAMES]
            )
        )
    holders = suspect["holders"][:NAMES]
    lines += [
        f"  held by    {holder['path']} ({holder['kind']}, {holder['items']} items)"
        for holder in holders
    ]
    if not suspect["holders"]:
        lines += [f"  held by    {path}" for path in suspect["paths"][:1]]
    for site in suspect["sites"][:NAMES]:
        grown = (
            size(site["bytes_per_run"])
            if site["figure"] in ("bytes", "native", "shared")
            else f"{site['bytes_per_run']:g} {site['figure']}"
        )
        lines.append(f"  made at    {site['site']}  {grown} a run")
    lines.append(f"  advice     {suspect['advice']}")
    return lines


def amount(suspect: dict[str, Any]) -> str:
    unit = UNITS.get(suspect["growth_class"])
    if unit:
        return f"{suspect['retained_count_per_run']:g} {unit} a run"
    hourly = f"{size(suspect['retained_bytes_per_hour'])} an hour"
    return (
        f"{size(suspect['retained_bytes_per_run'])} a run, {hourly}" if suspect["runs"] else hourly
    )


def size(count: float) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(count) >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    for unit, factor in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.0f} {unit}"
    return f"{seconds:.0f} seconds"
