"""A fast part of the zoo, and the zoo's own judgement by values. All cases: ``make zoo``."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration import conftest
from tests.integration.servers import Server
from tests.zoo import baseline, judge, others, reported  # noqa: F401  # the modules make the cases
from tests.zoo.case import CASES, name_of
from tests.zoo.judge import Verdict
from tests.zoo.stage import run_case

broker = conftest.redis_server

LEAKS = ("unbounded_cache", "dict_of_strings", "only_failing_runs_leak", "native")
INNOCENTS = ("own_lru_of_128", "cyclic_garbage")
#: Fewer neighbours than in the whole zoo, for speed.
BESIDE = {"noop": 0.4, "churn": 0.1, "dicts": 0.2, "bounded": 0.4}


def verdict_of(name: str, broker: Server, folder: Path, runs: int = 300) -> Verdict:
    case = replace(CASES[name], runs=runs, per_second=40.0, beside=BESIDE)
    return run_case(case, broker, folder, settle_seconds=5.0)


@pytest.mark.integration
@pytest.mark.parametrize("name", LEAKS)
def test_a_leaking_task_is_named_and_nobody_else_is(
    name: str, broker: Server, tmp_path: Path
) -> None:
    verdict = verdict_of(name, broker, tmp_path)
    assert verdict.named_at_end, verdict.answer
    assert verdict.class_right, verdict.growth_classes
    assert verdict.explained in (None, True), verdict.answer
    assert not verdict.wrong_ever
    assert not verdict.cleared_first
    assert not verdict.trouble


@pytest.mark.integration
@pytest.mark.parametrize("name", INNOCENTS)
def test_an_innocent_task_is_not_accused(name: str, broker: Server, tmp_path: Path) -> None:
    # The walk that finds a cache's bound has little time in a run: where the tests crowd the
    # machine, the cache may be full before that, and look like a leak until then. `make zoo` asks
    # for more: that nobody is ever accused.
    verdict = verdict_of(name, broker, tmp_path, runs=1_000)
    assert not verdict.wrong_at_end
    assert not verdict.trouble


# --- the judgement itself -----------------------------------------------------------------------


def suspect(task: str | None, growth_class: str = "python", **parts: Any) -> dict[str, Any]:
    return {
        "task": CASES[task].task if task in CASES else task and name_of(task),
        "growth_class": growth_class,
        **parts,
    }


def judged(name: str, *answers: list[dict[str, Any]]) -> Verdict:
    verdict = Verdict(CASES[name])
    for number, suspects in enumerate(answers):
        verdict.see({"suspects": suspects, "cleared": []}, runs=10 * number, seconds=float(number))
    return verdict


def test_a_holder_explains() -> None:
    holders = [{"path": "tests.zoo.reported.ROWS", "kind": "list", "items": 9, "growth": 9}]
    verdict = judged("list_of_dicts", [], [suspect("list_of_dicts", holders=holders)])
    assert (verdict.words, verdict.class_right, verdict.explained) == ("named", True, True)
    assert verdict.named_first == judge.Named(10, 1.0)


def test_a_line_of_the_task_explains_and_another_one_does_not() -> None:
    case = CASES["rare_leak"]
    for line, explained in ((max(case.lines), True), ("zoo/reported.py:1", False)):
        sites = [{"site": f"/app/tests/{line}", "amount_per_run": 9}]
        assert judged("rare_leak", [suspect("rare_leak", sites=sites)]).explained is explained


def test_a_neighbour_accused_once_is_a_wrong_accusation_for_good() -> None:
    verdict = judged("native", [suspect("churn")], [suspect("native", "native")])
    assert verdict.words == "named, WRONG"
    assert not verdict.wrong_at_end
    found = judge.figures([verdict])
    assert [found[name].value for name in ("recall", "precision", "attribution")] == [1.0, 0.5, 0.0]
    assert not judge.passed(found)


def test_a_leak_is_never_told_as_none_and_may_not_be_known_yet() -> None:
    def told(growth_class: str) -> Verdict:
        verdict = Verdict(CASES["native"])
        row = {"task": verdict.case.task, "growth_class": growth_class, "reason": "why"}
        verdict.see({"suspects": [], "cleared": [row]}, runs=50, seconds=5.0)
        verdict.see({"suspects": [suspect("native", "native")], "cleared": []}, 90, 9.0)
        return verdict

    assert (told("unsettled").words, told("steady").words) == ("named", "named, CLEARED")
    assert judge.passed(judge.figures([told("unsettled")]))
    assert not judge.passed(judge.figures([told("steady")]))
    assert judge.summary([told("steady")]).endswith("native: cleared as steady after 50 runs, 5 s")


def test_a_leaking_tasks_process_beside_it_is_no_wrong_accusation_but_an_innocents_is() -> None:
    assert judged("native", [suspect(None)]).words == "MISSED"
    assert judged("failing", [suspect(None)]).words == "WRONG"
    assert judged("eta_flood", [suspect(None, "main")]).words == "named"


def test_a_suspect_that_is_gone_at_the_end_does_not_count_as_found() -> None:
    verdict = judged("native", [suspect("native", "native")], [])
    assert verdict.words == "DROPPED"
    assert judge.figures([verdict])["recall"].value == 0.0


def test_the_trend_fires_on_growth_and_not_on_noise() -> None:
    noise = random.Random(1)
    times = [float(second) for second in range(30)]
    flat = [80e6 + noise.gauss(0, 1e6) for _ in times]
    rising = [value + 1e6 * time for value, time in zip(flat, times, strict=True)]
    assert not baseline.trend(times, flat).fired
    assert baseline.trend(times, rising).fired
    assert not baseline.trend(times, [80e6] * len(times)).fired


def test_the_baseline_takes_the_task_with_the_largest_net_growth() -> None:
    assert baseline.likeliest({"a": 9.0, "b": 5.0}, {"a": 8.0}) == "b"
    assert baseline.likeliest({"a": 1.0}, {"a": 2.0}) is None
