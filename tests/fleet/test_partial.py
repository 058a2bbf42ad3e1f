"""Evidence that a partial report leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from celery_memory_exporter.common.codec import decode, encode
from celery_memory_exporter.common.evidence import Evidence
from celery_memory_exporter.common.report import WorkerReport
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from tests import samples

EVIDENCE = samples.evidence(processes=1.0)
NEWER = samples.evidence(processes=2.0)


class Held:
    """A fleet that hears of one worker, and the evidence that it holds by task and queue."""

    def __init__(self, **limits: int) -> None:
        self._fleet = Fleet(Rules(samples.BOOT, Limits(**limits)))

    def take(self, sequence: int, evidence: dict[str, Evidence | None], **changes: Any) -> None:
        runs = {"succeeded": sequence}
        tasks = [samples.task(name, runs=runs, evidence=each) for name, each in evidence.items()]
        told = {"partial": 1, "sequence": sequence, "tasks": tasks, "lost": [], **changes}
        # As it comes over the network.
        assert self._fleet.apply_report(decode(encode(samples.report(**told))), 0.0) is None

    @property
    def report(self) -> WorkerReport:
        (worker,) = self._fleet.snapshot(0.0).workers
        assert worker.report is not None
        return worker.report

    @property
    def evidence(self) -> dict[str, float | None]:
        """By task, the processes that it tells of."""
        return {
            task.name: task.evidence.processes if task.evidence is not None else None
            for task in self.report.tasks
        }


def test_what_is_left_out_is_as_it_was_and_figures_are_new() -> None:
    held = Held()
    held.take(1, {"a": EVIDENCE, "b": EVIDENCE}, partial=None)
    held.take(2, {"a": NEWER, "b": None})
    held.take(3, {"a": None, "b": None})
    assert held.evidence == {"a": 2.0, "b": 1.0}
    assert [task.runs for task in held.report.tasks] == [{"succeeded": 3}] * 2


def test_the_time_that_a_type_has_been_running_goes_on() -> None:
    held = Held()
    held.take(1, {"a": samples.evidence(seconds=60.0)})
    held.take(2, {"a": None}, interval_seconds=15.0)
    held.take(4, {"a": None}, interval_seconds=15.0)
    (task,) = held.report.tasks
    assert task.evidence is not None
    assert task.evidence.seconds == 60.0 + 45.0


def test_what_was_never_told_is_not_there() -> None:
    held = Held()
    held.take(2, {"a": None})
    assert held.evidence == {"a": None}
    held.take(3, {"a": None, "b": EVIDENCE})
    assert held.evidence == {"a": None, "b": 1.0}


def test_a_lost_report_makes_evidence_old_and_no_figure_until_its_turn_comes() -> None:
    held = Held()
    held.take(1, {"a": EVIDENCE})
    held.take(3, {"a": None})  # the second one, which told of what had changed, is lost
    assert (held.evidence, held.report.tasks[0].runs) == ({"a": 1.0}, {"succeeded": 3})
    held.take(4, {"a": NEWER})
    assert held.evidence == {"a": 2.0}


def test_another_instance_has_evidence_of_its_own() -> None:
    held = Held()
    held.take(1, {"a": EVIDENCE})
    held.take(1, {"a": None}, instance=samples.instance(200, started_at=2_000.0))
    assert held.evidence == {"a": None}


def test_a_report_that_is_not_partial_tells_all_there_is() -> None:
    """As every report of version 0.2.0 and before does."""
    held = Held()
    held.take(1, {"a": EVIDENCE}, partial=None)
    held.take(2, {"a": None}, partial=None)
    assert held.evidence == {"a": None}


@pytest.mark.parametrize("known", [None, NEWER])
def test_a_sum_beyond_the_limits_is_never_of_a_part_of_its_types(known: Evidence | None) -> None:
    held = Held(tasks_per_worker=1)
    held.take(1, {"a": EVIDENCE, "b": EVIDENCE, "c": EVIDENCE}, partial=None)
    (_, before) = held.report.tasks
    held.take(2, {"a": None, "b": NEWER, "c": known})
    (_, after) = held.report.tasks
    assert before.evidence is not None
    assert after.evidence is not None
    assert after.evidence.profile == before.evidence.profile, "of two types"
    assert after.evidence.processes == (1.0 if known is None else 2.0)
