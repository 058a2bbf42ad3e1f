"""When it will be known whether a task type leaks."""

from __future__ import annotations

import dataclasses

import pytest

from celery_memory_exporter.common.evidence import Estimate, Evidence
from celery_memory_exporter.diagnosis.filling import LEAST_NEW_RUNS
from celery_memory_exporter.diagnosis.going_on import LEAST_LATE_AUDITS
from celery_memory_exporter.diagnosis.rules import OVERLAPPING_RUNS, SETTLED, Case, steady_window
from celery_memory_exporter.diagnosis.verdict import Cleared
from celery_memory_exporter.diagnosis.waiting import runs_missing, seconds_until_known
from tests.diagnosis.evidence import (
    Process,
    evidence_of,
    leak,
    nothing,
    task,
    told_by,
    verdict_on,
    view,
)


def case_of(evidence: Evidence, runs: int = 400) -> Case:
    told = task(evidence, runs={"succeeded": runs})
    return Case(view(evidence, tasks=[told]), told, evidence, steady_window(evidence))


def rarely_audited(runs: int, late_audits: int) -> Evidence:
    """One process; so many of its later half's runs were audited."""
    seen = Process()
    for number in range(runs):
        audited = number < 40 or (number >= runs // 2 and (runs - number) % 20 == 0)
        if audited and (number < 40 or late_audits > 0):
            seen.audit()
            late_audits -= number >= 40
        else:
            seen.run()
    return told_by(seen)


def test_runs_are_missing_until_the_processes_have_seen_enough() -> None:
    young = evidence_of(nothing, runs=20, processes=2)
    missing = runs_missing(case_of(young))
    assert missing == 2 * SETTLED + LEAST_NEW_RUNS - 40
    assert isinstance(verdict_on(evidence_of(nothing, runs=120, processes=2)), Cleared)


def test_missing_audits_come_with_the_runs_that_they_came_with_so_far() -> None:
    evidence = rarely_audited(400, late_audits=2)
    verdict = verdict_on(evidence)
    assert isinstance(verdict, Cleared)
    assert "2 of 5 audits" in verdict.reason
    steady = steady_window(evidence).sums.runs
    assert runs_missing(case_of(evidence)) == steady * (LEAST_LATE_AUDITS / 2 - 1)
    assert verdict.known_in_seconds == pytest.approx(60 * steady * 1.5 / 400, abs=1)


def test_where_nothing_was_audited_nobody_can_tell_when_something_will_be() -> None:
    assert seconds_until_known(case_of(rarely_audited(400, late_audits=0))) is None


def test_what_is_known_is_not_waited_for() -> None:
    assert runs_missing(case_of(evidence_of(leak))) is None
    settled = verdict_on(evidence_of(nothing))
    assert isinstance(settled, Cleared)
    assert settled.known_in_seconds is None


def test_where_runs_overlap_it_takes_so_many_of_them() -> None:
    few = Estimate(0.0, 1.0, 0.0, 1.0, 30, 12)
    evidence = dataclasses.replace(evidence_of(nothing, runs=30), overlapping=few)
    told = task(evidence)
    case = Case(view(evidence, pool="threads"), told, evidence, steady_window(evidence))
    assert runs_missing(case) == OVERLAPPING_RUNS - 30
    unseen = dataclasses.replace(evidence, overlapping=None)
    case = Case(view(unseen, pool="threads"), told, unseen, steady_window(unseen))
    assert runs_missing(case) == OVERLAPPING_RUNS
