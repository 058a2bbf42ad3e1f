"""What the demo prints: snapshots in, text out. No I/O and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from celery_memory_exporter.diagnosis.text import as_text, size
from celery_memory_exporter.diagnosis.verdict import Diagnosis
from celery_memory_exporter.fleet.snapshot import Snapshot, WorkerView
from celery_memory_exporter.fleet.sums import by_name

BARS = "▁▂▃▄▅▆▇█"
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class TaskPoint:
    """A task type at one moment, cumulative."""

    runs: int
    retained_runs: int
    retained_bytes: float
    retained_blocks: float


@dataclass(frozen=True, slots=True)
class Point:
    """The demo's worker at one moment."""

    at: float
    tasks: dict[str, TaskPoint]
    rss: dict[str, int]
    #: Object type -> count and growth.
    types: dict[str, tuple[int, int]]


@dataclass
class History:
    """All points so far, oldest first."""

    nodename: str
    #: Where the exporter answers.
    url: str
    points: list[Point] = field(default_factory=list)

    def add(self, snapshot: Snapshot, now: float) -> None:
        """Keeps what the snapshot tells of the worker, once it has reported runs."""
        for worker in snapshot.workers:
            if (
                worker.nodename == self.nodename
                and worker.report is not None
                and worker.report.tasks
            ):
                self.points.append(point(worker, now))

    @property
    def started(self) -> bool:
        return bool(self.points)

    @property
    def seconds(self) -> float:
        return self.points[-1].at - self.points[0].at if self.points else 0.0

    def late(self, name: str) -> tuple[float, float, int]:
        """Retained bytes and blocks per run, and the runs behind them, over the later half:
        start-up is left behind."""
        last = self.points[-1].tasks.get(name)
        if last is None:
            return 0.0, 0.0, 0
        nothing = TaskPoint(0, 0, 0.0, 0.0)
        first = (
            self.points[len(self.points) // 2].tasks.get(name, nothing)
            if len(self.points) > 2
            else nothing
        )
        runs = last.retained_runs - first.retained_runs
        if runs <= 0:
            return 0.0, 0.0, 0
        return (
            (last.retained_bytes - first.retained_bytes) / runs,
            (last.retained_blocks - first.retained_blocks) / runs,
            runs,
        )

    def rising_types(self) -> list[tuple[str, int, int]]:
        """Type, growth, and rise over the later half; steepest first."""
        last, middle = self.points[-1].types, self.points[len(self.points) // 2].types
        rows = [
            (name, growth, growth - middle.get(name, (0, 0))[1])
            for name, (_, growth) in last.items()
        ]
        return sorted(rows, key=lambda row: (-row[2], row[0]))


def point(worker: WorkerView, now: float) -> Point:
    assert worker.report is not None
    tasks = {
        task.name: TaskPoint(
            sum(task.runs.values()), task.retained_runs, task.retained_bytes, task.retained_blocks
        )
        for task in by_name(worker.report.tasks)
    }
    return Point(
        at=now,
        tasks=tasks,
        rss={each.figures.process: each.figures.rss_bytes or 0 for each in worker.processes},
        types={counted.type: (counted.count, counted.growth) for counted in worker.report.objects},
    )


def table(history: History, *, clear: bool) -> str:
    """The live picture: per task type, per process, per object type."""
    last = history.points[-1]
    lines = [
        "\033[H\033[J" if clear else "",
        f"{history.url}/metrics   {history.seconds:4.0f} s",
        "",
    ]
    lines.append(
        f"{'task':<34}{'runs':>7}{'retained/run':>15}{'blocks/run':>12}  trend of what is retained"
    )
    for name in sorted(last.tasks, key=lambda name: -last.tasks[name].retained_bytes):
        per_run, blocks, _ = history.late(name)
        series = [each.tasks[name].retained_bytes for each in history.points if name in each.tasks]
        lines.append(
            f"{short(name):<34}{last.tasks[name].runs:>7}{size(per_run):>15}{blocks:>12.1f}  "
            f"{sparkline(series)}"
        )
    processes = "   ".join(f"{name} {rss / MIB:.1f} MiB" for name, rss in last.rss.items())
    lines += ["", f"RSS         {processes}"]
    growing = ", ".join(
        f"{short(name)} {growth:+}" for name, growth, rise in history.rising_types()[:5] if rise > 0
    )
    lines += [f"growing     {growing or 'nothing yet'}"]
    return "\n".join(lines)


def alerts(url: str, found: list[tuple[str, str, str]]) -> str:
    """What Prometheus says: name, state and task type of each alert."""
    told = ", ".join(
        f"{name} {state}" + (f" ({short(task)})" if task else "") for name, state, task in found
    )
    return f"alerts      {told or 'none yet'}   {url}"


def summary(history: History, diagnosis: Diagnosis) -> str:
    """Who leaks, and who does not."""
    if not history.started:
        return "\nNo report has arrived yet: let the demo run for some seconds longer."
    return "\n" + as_text(diagnosis)


def short(name: str) -> str:
    """Without the demo's own module."""
    return name.removeprefix("celery_memory_exporter.demo.shop.")


def sparkline(values: list[float], width: int = 24) -> str:
    """The series in ``width`` steps, scaled to its own range above zero."""
    step = max(1, len(values) // width)
    picked = values[::-1][::step][::-1][-width:]
    top = max([*picked, 64 * 1024.0])  # below 64 KiB in all it is a flat line, not a mountain
    return "".join(
        BARS[max(0, min(len(BARS) - 1, int(value / top * (len(BARS) - 1))))] for value in picked
    )
