"""What a worker's processes saw of one task type, and who is accused by it: for more than one test
file."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from celery_memory_exporter.agent.stats.growth import TaskProfile
from celery_memory_exporter.agent.worker.evidence import TaskEvidence, together
from celery_memory_exporter.agent.worker.evidence_reports import to_evidence
from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Estimate, Evidence, Fill, Holder
from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import TaskReport
from celery_memory_exporter.diagnosis.judge import diagnose
from celery_memory_exporter.diagnosis.profile import Window, window
from celery_memory_exporter.diagnosis.rules import Case, steady_window
from celery_memory_exporter.diagnosis.verdict import Cleared, Diagnosis, Suspect
from celery_memory_exporter.fleet.snapshot import GroupView, ProcessView, Snapshot, WorkerView
from tests import samples

MIB = samples.MIB
#: What the run of this number (of its type, in its process) leaves behind, in bytes.
Shape = Callable[[int], float]
#: A figure of a process at the point of this number of its history, in bytes.
Series = Callable[[int], float]
#: Least squares that are sure of 18,000 bytes a run.
SURE = Estimate(18_000.0, 500.0, 17_500.0, 900.0, 400, 40)


class Process:
    """Runs of one task type in one process, as its agent books them."""

    def __init__(self) -> None:
        self.booked = TaskProfile()

    def audit(
        self, blocks: float = 0.0, native: float = 0.0, *, garbage: float = 0.0, **kernel: float
    ) -> None:
        """An audited run. ``garbage`` in bytes, ``kernel`` by the profile's columns."""
        start = self.booked.begin()
        self.booked.add_audit(start, blocks, native)
        self.booked.add_garbage(start, 0.0, garbage)
        columns = ("fds", "threads", "children", "shared")
        self.booked.add_kernel(start, *(kernel.get(name, 0.0) for name in columns))

    def read(self, size: float, *, only_large: bool = True) -> None:
        """A run that was read before and after; all that it read, or large amounts only."""
        self.booked.add_sample(self.booked.begin(), size / 90, 0.0, only_large=only_large)

    def run(self) -> None:
        """A run that was not measured."""
        self.booked.begin()


def told_by(*processes: Process, overlapping: Estimate | None = None) -> Evidence:
    """What the worker reports of these processes."""
    words = together([TaskEvidence(row=each.booked.row) for each in processes])
    return to_evidence(words, words.row.to_profile(), 60.0, overlapping, None)


def process(shape: Shape, runs: int, *, audit_every: int = 2, **kernel: float) -> Process:
    """After so many runs, of which chance audits one in ``audit_every``."""
    result = Process()
    chance = random.Random(runs)
    for number in range(runs):
        size = shape(number)
        if chance.randrange(audit_every) == 0:
            result.audit(size / 90, **kernel)
        else:
            result.read(size)
    return result


def evidence_of(shape: Shape, runs: int = 200, processes: int = 2, **options: Any) -> Evidence:
    return told_by(*[process(shape, runs, **options) for _ in range(processes)])


def filled(
    shape: Shape, runs: int, gains: Callable[[int], float], limit: int | None = None
) -> Evidence:
    """Two processes in which the runs of these numbers also add so many items to a container."""
    fill = fill_of((runs, runs), gains)
    held = [Holder("shop.held", "dict", 99, 20.0, limit)]
    return dataclasses.replace(evidence_of(shape, runs), holders=held, fills=[fill])


def fill_of(runs: Sequence[int], gains: Callable[[int], float]) -> Fill:
    """How ``shop.held`` filled up in processes that have had so many runs each."""
    most = max(runs)
    bounds = [each for each in AGES[AGES.index(WARM_RUNS) :] if each < most] + [most]
    spans = [[range(start, min(end, each)) for each in runs] for start, end in pairwise(bounds)]
    return Fill(
        "shop.held",
        [float(sum(sum(map(gains, part)) for part in parts)) for parts in spans],
        [float(sum(map(len, parts))) for parts in spans],
    )


def leak(_: int) -> float:
    return 1000.0


def nothing(_: int) -> float:
    return 0.0


def task(evidence: Evidence | None, name: str = "shop.leak", **changes: Any) -> TaskReport:
    """Of 400 runs that left resident memory as it was."""
    same: dict[str, Any] = {"runs": {"succeeded": 400}, "growth_bytes": 0.0, "release_bytes": 0.0}
    return samples.task(name, evidence=evidence, **{**same, **changes})


def view(
    evidence: Evidence | None, *, name: str = "shop.leak", runs: int = 400, **changes: Any
) -> WorkerView:
    """A worker with one task type; ``changes`` of its report, or of the view itself."""
    figures = {"runs": {"succeeded": runs}, **changes.pop("task", {})}
    told = (
        "containers",
        "main_containers",
        "pool",
        "child_memory_limit_bytes",
        "processes",
        "tasks",
    )
    report = samples.report(
        **{
            "tasks": [task(evidence, name, **figures)],
            "containers": [],
            "child_memory_limit_bytes": None,
            **{name: changes.pop(name) for name in told if name in changes},
        }
    )
    value = WorkerView(
        nodename="celery@web1",
        up=True,
        live=True,
        report=report,
        processes=tuple(ProcessView(each) for each in report.processes),
        cgroup=CgroupMemory(),
    )
    return dataclasses.replace(value, **changes)


def history(
    live: Series, anon: Series | None = None, free: float = 0.0, step: float = 60.0
) -> list[list[float]]:
    """Of a process, at sixteen points; what the C heap keeps free rises by ``free`` bytes each."""
    points = range(16)
    return [[step * n, 90.0 * MIB, (anon or live)(n), live(n), free * n, 20.0, 2.0] for n in points]


def snapshot_of(*workers: WorkerView) -> Snapshot:
    """Of workers that are in no group."""
    return Snapshot(tuple(GroupView((worker,)) for worker in workers))


def diagnosis_of(*workers: WorkerView) -> Diagnosis:
    return diagnose(workers)


def verdict_on(evidence: Evidence, **changes: Any) -> Suspect | Cleared:
    """On the one task type of a worker."""
    diagnosis = diagnosis_of(view(evidence, **changes))
    (verdict,) = [*diagnosis.suspects, *diagnosis.cleared]
    return verdict


def case_of(evidence: Evidence, **changes: Any) -> Case:
    """The case that is made of this evidence."""
    worker = view(evidence, **changes)
    assert worker.report is not None
    return Case(worker, worker.report.tasks[0], evidence, steady_window(evidence))


def steady(*processes: Process) -> Window:
    """What these processes' runs past start-up left behind."""
    return window(told_by(*processes).profile, WARM_RUNS)


def suspect(**changes: Any) -> Suspect:
    """A task type that leaves 900 bytes a run behind."""
    value = Suspect(
        worker="celery@web1",
        task="shop.leak",
        growth_class="python",
        growth_classes=("python",),
        retained_bytes_per_run=900.0,
        retained_bytes_per_hour=540_000.0,
        retained_count_per_run=0.0,
        runs=40,
        audited_runs=20,
        confidence=0.99,
        processes=2,
        growing_processes=2,
        advice="Bound it.",
    )
    return dataclasses.replace(value, **changes)
