"""What the terminal says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from celery_memory_exporter.common.evidence import Holder
from celery_memory_exporter.diagnosis.text import amount, as_text, duration, size
from celery_memory_exporter.diagnosis.verdict import (
    Cleared,
    Diagnosis,
    ObjectRate,
    SiteRate,
    WorkerVerdict,
)
from tests import samples
from tests.diagnosis.evidence import diagnosis_of, evidence_of, nothing, suspect, task, view


def worker(name: str = "celery@web1", *, leaking: bool = True, **changes: Any) -> WorkerVerdict:
    figures: dict[str, Any] = {
        "retained_bytes_per_hour": 0.0,
        "rss_bytes": None,
        "limit_bytes": None,
        "seconds_to_limit": None,
        "growth_class": "python",
        "advice": "",
    }
    return WorkerVerdict(worker=name, leaking=leaking, **{**figures, **changes})


def cleared(task: str, growth_class: str = "steady", reason: str = "nothing left") -> Cleared:
    return Cleared("celery@web1", task, growth_class, reason, 0.0, runs=10, audited_runs=5)


def lines_of(**changes: Any) -> list[str]:
    """Of one suspect, without its name and its advice."""
    shown = as_text(Diagnosis((suspect(**changes),), (), (worker(),)))
    return shown.splitlines()[3:-1]


def test_a_leak_with_its_holder_line_and_types() -> None:
    tasks = [samples.task(), task(evidence_of(nothing), "shop.fine", runs={"succeeded": 10})]
    lines = as_text(diagnosis_of(view(None, tasks=tasks))).splitlines()
    assert lines[0] == "1 leak in 1 of 1 worker"
    assert lines[2:8] == [
        "shop.leak   on celery@web1",
        "  retains    900 B a run, 527.3 KiB an hour",
        "  evidence   python; 10 runs, 5 audited, 2 of 2 processes, confidence 0.99",
        "  leaves     shop.MyCacheEntry 1 a run, list 2 a run",
        "  held by    shop._my_app_cache (dict, 250 items)",
        "  made at    shop.py:71  900 B a run",
    ]
    assert lines[8].startswith("  advice     shop._my_app_cache grows with each run.")
    assert lines[9:] == [
        "",
        "Not leaking",
        "  shop.fine  steady     its runs leave nothing behind (10 runs)",
    ]


def test_since_when_is_told_to_the_minute() -> None:
    lines = as_text(Diagnosis((suspect(since=1_700_000_000.0),), (), (worker(),))).splitlines()
    assert "  since      2023-11-14 22:13 UTC" in lines


def test_several_leaks_and_workers() -> None:
    workers = (worker(), worker("celery@web2", leaking=False), worker("celery@web3"))
    shown = as_text(Diagnosis((suspect(), suspect(worker="celery@web3")), (), workers))
    assert shown.startswith("2 leaks in 2 of 3 workers\n\nshop.leak   on celery@web1\n")
    assert "\n\nshop.leak   on celery@web3\n" in shown


def test_no_leak() -> None:
    diagnosis = Diagnosis((), (cleared("shop.fine"),), (worker(leaking=False),))
    assert as_text(diagnosis).startswith("No leak found in 1 worker.\n")


def test_what_is_not_known_yet_stands_apart_from_what_does_not_leak() -> None:
    names = ("shop.z", "steady"), ("shop.a", "unsettled"), ("shop.long", "warm-up")
    diagnosis = Diagnosis((), tuple(cleared(*each) for each in names), (worker(leaking=False),))
    assert as_text(diagnosis).splitlines() == [
        "No leak found yet in 1 worker; 1 of 3 task types not known yet.",
        "",
        "Not leaking",
        "  shop.long  warm-up    nothing left (10 runs)",
        "  shop.z     steady     nothing left (10 runs)",
        "",
        "Not known yet",
        "  shop.a  unsettled  nothing left (10 runs)",
    ]


def test_when_it_will_be_known_is_told_where_it_can_be() -> None:
    waiting = dataclasses.replace(cleared("shop.a", "unsettled"), known_in_seconds=240)
    text = as_text(Diagnosis((), (waiting,), (worker(leaking=False),)))
    assert text.endswith("  shop.a  unsettled  nothing left (10 runs); some 4 minutes more")


def test_where_no_task_has_run_nothing_is_known() -> None:
    assert as_text(Diagnosis((), (), (worker(leaking=False),))) == (
        "Not known yet: no task has run in 1 worker."
    )


def test_no_agent_is_told_with_the_next_step() -> None:
    assert "-I celery_memory_exporter.autoload" in as_text(Diagnosis())


def test_a_process_that_no_task_type_explains_has_no_runs() -> None:
    found = suspect(task=None, process="main", runs=0, growth_class="main")
    shown = as_text(Diagnosis((found,), (), (worker(),))).splitlines()
    assert shown[2:] == [
        "process main (no task type explains it)   on celery@web1",
        "  retains    527.3 KiB an hour",
        "  advice     Bound it.",
    ]


def test_that_only_failing_runs_leak_is_told_with_the_amount() -> None:
    assert lines_of(outcome="failed")[0].endswith("an hour, only when it fails")


def test_descriptors_are_counted_and_lines_told_in_their_own_unit() -> None:
    lines = lines_of(
        growth_class="descriptors",
        growth_classes=("descriptors", "native"),
        retained_count_per_run=1.25,
        sites=(SiteRate("shop.py:9", 1.0, "descriptors"), SiteRate("shop.py:8", 4096.0, "native")),
    )
    assert lines[0] == "  retains    1.25 descriptors a run"
    assert lines[1].startswith("  evidence   descriptors + native; 40 runs")
    assert lines[2:] == [
        "  made at    shop.py:9  1 descriptors a run",
        "  made at    shop.py:8  4.0 KiB a run",
    ]


def test_three_types_holders_and_lines_are_named() -> None:
    lines = lines_of(
        object_types=tuple(ObjectRate(f"shop.T{number}", 1.5) for number in range(4)),
        holders=tuple(Holder(f"shop.h{number}", "list", 7, 1.0) for number in range(4)),
        sites=tuple(SiteRate(f"shop.py:{number}", 10.0) for number in range(4)),
        paths=("shop.path",),
    )
    assert lines[2:] == [
        "  leaves     shop.T0 1.5 a run, shop.T1 1.5 a run, shop.T2 1.5 a run",
        *(f"  held by    shop.h{number} (list, 7 items)" for number in range(3)),
        *(f"  made at    shop.py:{number}  10 B a run" for number in range(3)),
    ]


def test_a_path_is_told_where_no_container_is_known() -> None:
    assert lines_of(paths=("shop.held['key']", "shop.other"))[2:] == [
        "  held by    shop.held['key']"
    ]


def test_time_to_the_limit_of_workers_that_have_one() -> None:
    workers = (worker("celery@web1"), worker("celery@web2", seconds_to_limit=500_000.0))
    assert as_text(Diagnosis((), (), workers)).splitlines()[1:] == [
        "",
        "Memory limit",
        "  celery@web2  reached in 6 days at the present rate",
    ]


def test_amounts() -> None:
    assert amount(suspect()) == "900 B a run, 527.3 KiB an hour"
    assert amount(suspect(growth_class="threads", retained_count_per_run=2.0)) == "2 threads a run"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (2048, "2.0 KiB"),
        (-(3 << 20), "-3.0 MiB"),
        (5 << 30, "5.0 GiB"),
    ],
)
def test_sizes(count: float, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(5, "5 seconds"), (300, "5 minutes"), (10_000, "3 hours"), (400_000, "5 days")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
