"""Partial reports: evidence that an agent leaves out is as it was in the report before.

It is left out of task types that have not run since it was told. Where a report in between was
lost, what is kept is older than the agent takes it for, by three reports at most; figures never
are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from celery_memory_exporter.common.evidence import Evidence
from celery_memory_exporter.common.report import TaskReport, WorkerReport
from celery_memory_exporter.fleet.sums import KEYS

_key = KEYS[TaskReport]


def without_parts(tasks: Sequence[TaskReport]) -> list[TaskReport]:
    """The task types of a partial report before those of one key are added up: with no evidence
    where one of them has none, since the others' would be taken for that of all."""
    lacking = {_key(task) for task in tasks if task.evidence is None}
    return [
        dataclasses.replace(task, evidence=None) if _key(task) in lacking else task
        for task in tasks
    ]


def completed(report: WorkerReport, former: WorkerReport | None) -> WorkerReport:
    """The report with the evidence that it leaves out, as far as it is known. ``former`` is what is
    held of the worker."""
    if not report.partial or former is None or former.instance != report.instance:
        return report
    seconds = (report.sequence - former.sequence) * report.interval_seconds
    known = {_key(task): task.evidence for task in former.tasks}
    tasks = [
        task if task.evidence is not None else _with(task, known.get(_key(task)), seconds)
        for task in report.tasks
    ]
    return dataclasses.replace(report, tasks=tasks)


def _with(task: TaskReport, evidence: Evidence | None, seconds: float) -> TaskReport:
    """``seconds`` have passed since: what is left behind in an hour depends on how long the type
    has been running."""
    if evidence is None:
        return task
    kept = dataclasses.replace(evidence, seconds=evidence.seconds + seconds)
    return dataclasses.replace(task, evidence=kept)
