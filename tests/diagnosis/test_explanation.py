"""What is told with a verdict: amounts, types, holders and lines; or why a task type is cleared."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_memory_exporter.common.evidence import AGES, Estimate, Holder, Site
from celery_memory_exporter.common.report import ObjectCount
from celery_memory_exporter.diagnosis.explanation import (
    confidence,
    object_rates,
    ranked,
    rates_of,
    sites_of,
)
from celery_memory_exporter.diagnosis.profile import window
from celery_memory_exporter.diagnosis.verdict import Cleared, ObjectRate, SiteRate, Suspect
from tests import samples
from tests.diagnosis.evidence import (
    MIB,
    SURE,
    case_of,
    evidence_of,
    history,
    leak,
    nothing,
    verdict_on,
)

# --- who leaks ----------------------------------------------------------------------------------


def test_the_answer_names_type_holder_and_line() -> None:
    evidence = dataclasses.replace(
        evidence_of(leak),
        survivors={"list": 200, "shop.MyCacheEntry": 200},
        holders=[Holder("shop._my_app_cache", "dict", 400, 12.0)],
        sites=[Site("shop.py:71", "bytes", 9000.0), Site("shop.py:80", "bytes", 20.0)],
        deep_audits=9,
        traced_audits=9,
    )
    verdict = verdict_on(evidence)
    assert isinstance(verdict, Suspect)
    assert verdict.holder == "shop._my_app_cache"
    assert [each.type for each in verdict.object_types] == ["shop.MyCacheEntry", "list"]
    assert [(each.site, each.amount_per_run) for each in verdict.sites] == [("shop.py:71", 1000.0)]
    assert "shop._my_app_cache" in verdict.advice
    assert "shop.py:71" in verdict.advice


@pytest.mark.parametrize(("share", "outcome"), [(1.0, "failed"), (0.91, "failed"), (0.89, None)])
def test_only_failing_runs_leak(share: float, outcome: str | None) -> None:
    evidence = evidence_of(lambda number: 3000.0 if number % 2 else 0.0, audit_every=1)
    failed = share * window(evidence.profile, 5).sums.size
    verdict = verdict_on(dataclasses.replace(evidence, failed_audits=200.0, failed_bytes=failed))
    assert isinstance(verdict, Suspect)
    assert verdict.outcome == outcome
    assert ("failing" in verdict.advice) is (outcome is not None)


def test_bytes_of_shared_memory_are_those_of_least_squares_where_they_stand() -> None:
    tmpfs = Estimate(6000.0, 200.0, 6000.0, 400.0, 400, 40)
    verdict = verdict_on(dataclasses.replace(evidence_of(nothing, shared=5000.0), tmpfs=tmpfs))
    assert isinstance(verdict, Suspect)
    assert verdict.retained_bytes_per_run == 6000


@pytest.mark.parametrize(
    ("processes", "growing", "confident"), [(2.0, 2.0, 0.99), (9.0, 4.0, 0.5), (2.0, 3.0, 0.99)]
)
def test_confidence_falls_with_the_processes_that_do_not_agree(
    processes: float, growing: float, confident: float
) -> None:
    evidence = dataclasses.replace(evidence_of(leak), processes=processes, growing=growing)
    assert confidence(case_of(evidence), "python") == confident


def test_confidence_rises_with_the_standard_errors() -> None:
    doubtful = dataclasses.replace(SURE, error=6_000.0)
    evidence = dataclasses.replace(evidence_of(nothing, 5, 1), processes=1.0, growing=1.0)
    shares = [
        confidence(
            case_of(dataclasses.replace(evidence, overlapping=each), pool="threads"), "python"
        )
        for each in (doubtful, SURE)
    ]
    assert shares == [0.9, 0.99]


# --- types and lines ----------------------------------------------------------------------------


def test_the_applications_own_types_come_first_and_five_are_told() -> None:
    per_run = {
        "list": 9.0,
        "shop.Cart": 1.0,
        "shop.Item": 2.0,
        "str": 0.009,
        "a": 3,
        "b": 2,
        "c": 1,
    }
    assert [each.type for each in ranked(per_run, 0.01)] == [
        *("shop.Item", "shop.Cart", "list", "a", "b")
    ]


def test_the_type_comes_first_that_tells_a_person_most() -> None:
    per_run = {"cell": 9.0, "weakref.ReferenceType": 9.0, "dict": 5.0, "function": 8.0}
    per_run |= {"threading.Lock": 2.0, "kombu.entity.Exchange": 1.0}
    assert [each.type for each in ranked(per_run, 0.01)] == [
        *("kombu.entity.Exchange", "threading.Lock", "dict", "cell", "weakref.ReferenceType")
    ]


def test_types_are_those_of_audited_runs() -> None:
    evidence = samples.evidence(survivors={"shop.Cart": 248})
    assert object_rates(evidence) == rates_of(case_of(evidence)) == (ObjectRate("shop.Cart", 2.0),)


def test_where_runs_overlap_types_are_the_workers() -> None:
    counts = [ObjectCount("shop.Cart", 900, 800), ObjectCount("shop.Seldom", 9, 37)]
    case = case_of(dataclasses.replace(evidence_of(nothing), overlapping=SURE), pool="threads")
    assert case.worker.report is not None
    report = dataclasses.replace(case.worker.report, objects=counts)
    case = dataclasses.replace(case, worker=dataclasses.replace(case.worker, report=report))
    assert rates_of(case) == (ObjectRate("shop.Cart", 2.0),)


def test_lines_of_python_come_first_and_small_ones_of_them_are_left_out() -> None:
    sites = [
        Site("shop.py:9", "descriptors", 4.0),
        Site("shop.py:1", "bytes", 19.0),
        Site("shop.py:2", "bytes", 981.0),
    ]
    evidence = dataclasses.replace(
        evidence_of(leak), sites=sites, traced_audits=2, watched_audits=4
    )
    assert sites_of(case_of(evidence)) == (
        SiteRate("shop.py:2", 490.5, "bytes"),
        SiteRate("shop.py:9", 1.0, "descriptors"),
    )


# --- who does not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "changes", "growth_class"),
    [
        (nothing, {}, "steady"),
        (lambda number: 1e6 if number < 5 else 0.0, {}, "warm-up"),
        (lambda number: 5000.0 if number < 90 else 0.0, {}, "bounded"),
        (nothing, {"growth_bytes": 80.0 * MIB}, "steady"),
    ],
)
def test_what_a_task_type_that_does_not_leak_looks_like(
    shape: Any, changes: dict[str, float], growth_class: str
) -> None:
    verdict = verdict_on(evidence_of(shape), task=changes)
    assert isinstance(verdict, Cleared)
    assert verdict.settled
    assert verdict.growth_class == growth_class
    assert bool(verdict.advice) is (growth_class != "steady")
    assert (verdict.runs, verdict.audited_runs) == (400, 5)


KEPT = {"growth_bytes": 80.0 * MIB, "release_bytes": 10.0 * MIB}


@pytest.mark.parametrize(
    ("changes", "free", "growth_class"),
    [
        (KEPT, 3.5 * MIB, "allocator"),
        (KEPT, 0.0, "unsettled"),
        ({"growth_bytes": 8.0 * MIB - 1}, 0.0, "steady"),
    ],
)
def test_the_allocator_is_blamed_only_where_its_free_bytes_show_it(
    changes: dict[str, float], free: float, growth_class: str
) -> None:
    rising = samples.process(
        "0",
        101,
        history=history(
            live=lambda _: 30.0 * MIB, anon=lambda number: (30.0 + 4 * number) * MIB, free=free
        ),
    )
    verdict = verdict_on(evidence_of(nothing), task=changes, processes=[rising])
    assert isinstance(verdict, Cleared)
    assert verdict.growth_class == growth_class


@given(
    shape=st.sampled_from([nothing, leak, lambda number: 5000.0 if number < 90 else 0.0]),
    kept=st.lists(st.booleans(), min_size=len(AGES), max_size=len(AGES)),
)
@settings(max_examples=200, deadline=None)
def test_where_audits_are_missing_no_answer_becomes_its_opposite(
    shape: Any, kept: list[bool]
) -> None:
    """Of the ages whose audits are taken away, what is known is that runs took place."""
    evidence = evidence_of(shape)
    profile = dataclasses.replace(
        evidence.profile,
        **{
            field.name: [
                value if keep or field.name == "runs" else 0.0
                for value, keep in zip(getattr(evidence.profile, field.name), kept, strict=False)
            ]
            for field in dataclasses.fields(evidence.profile)
        },
    )
    whole, less = verdict_on(evidence), verdict_on(dataclasses.replace(evidence, profile=profile))
    if isinstance(less, Suspect):
        assert isinstance(whole, Suspect)
    elif less.settled:
        assert isinstance(whole, Cleared)
