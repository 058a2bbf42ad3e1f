"""Answers are stable: what was told stays told until evidence clears it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from celery_memory_exporter.common.evidence import Holder
from celery_memory_exporter.diagnosis import told as module
from celery_memory_exporter.diagnosis.judge import diagnose
from celery_memory_exporter.diagnosis.told import REPORTS_TO_DROP, REPORTS_TO_JOIN, Told, in_order
from celery_memory_exporter.diagnosis.verdict import Cleared, Suspect
from celery_memory_exporter.fleet.snapshot import WorkerView
from tests import samples
from tests.diagnosis.evidence import (
    MIB,
    evidence_of,
    history,
    leak,
    nothing,
    suspect,
    view,
)


def at(sequence: int, worker: WorkerView | None = None, **changes: Any) -> WorkerView:
    """The worker when it sends the report of this number."""
    worker = worker or view(evidence_of(leak))
    assert worker.report is not None
    report = dataclasses.replace(worker.report, sequence=sequence, **changes)
    return dataclasses.replace(worker, report=report)


def memory() -> Told:
    return Told(iter(map(float, range(100, 10_000))).__next__)


def not_known(**changes: Any) -> Cleared:
    known = Cleared("celery@web1", "shop.leak", "unsettled", "too few", 0.0, 500, 9)
    return dataclasses.replace(known, **changes)


def say(told: Told, sequence: int, verdict: Suspect | Cleared) -> Suspect | Cleared:
    (answer,) = told.of_tasks(at(sequence), [verdict])
    return answer


def classes(told: Told, sequence: int, *found: str) -> tuple[str, ...]:
    """Those that are told after a report in which these were found."""
    accused = suspect(task="shop.leak", growth_class=found[0], growth_classes=found)
    answer = say(told, sequence, accused)
    assert isinstance(answer, Suspect)
    assert answer.growth_class == answer.growth_classes[0]
    return answer.growth_classes


# --- accused, until evidence clears it ----------------------------------------------------------


def test_an_accusation_stands_since_it_was_made_first() -> None:
    told = memory()
    for sequence in range(5):
        (found,) = diagnose([at(sequence)], told).suspects
        assert found.since == 100.0
    (alone,) = diagnose([at(9)]).suspects
    assert alone.since is None


def test_what_is_not_known_any_more_stays_accused_with_its_figures() -> None:
    told = memory()
    first = say(told, 1, suspect(task="shop.leak"))
    assert isinstance(first, Suspect)
    answer = say(told, 500, not_known())
    assert answer == dataclasses.replace(first, runs=500, audited_runs=9)


@pytest.mark.parametrize("cleared", [{"growth_class": "bounded"}, {"contradicted": True}])
def test_evidence_clears(cleared: dict[str, Any]) -> None:
    told = memory()
    say(told, 1, suspect(task="shop.leak"))
    for _ in range(2):
        assert say(told, 2, not_known(**cleared)) == not_known(**cleared)
    assert say(told, 3, not_known()) == not_known()


def test_a_worker_that_lost_its_evidence_is_told_as_before() -> None:
    told = memory()
    (accused,) = diagnose([at(1)], told).suspects
    (still,) = diagnose([at(2, view(evidence_of(leak, runs=30)))], told).suspects
    assert (still.since, still.growth_class) == (accused.since, accused.growth_class)
    assert diagnose([at(3, view(evidence_of(nothing)))], told).suspects == ()


def test_another_life_of_the_worker_begins_anew() -> None:
    told, young = memory(), view(evidence_of(leak, runs=30))
    diagnose([at(1)], told)
    next_life = dataclasses.replace(samples.instance(), pid=4711)
    assert diagnose([at(1, young, instance=next_life)], told).suspects == ()
    assert diagnose([dataclasses.replace(at(2, young), broker="other")], told).suspects == ()
    assert len(diagnose([at(2, young)], told).suspects) == 1


def test_endless_workers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 10)
    told = memory()
    for pid in range(50):
        instance = dataclasses.replace(samples.instance(), pid=pid)
        told.of_tasks(at(1, instance=instance), [suspect(task="shop.leak")])
    assert len(told._accusations) == 10
    assert say(told, 2, not_known()) == not_known()


# --- with its class -----------------------------------------------------------------------------


def test_a_class_that_comes_and_goes_does_not_flap() -> None:
    told = memory()
    assert classes(told, 1, "descriptors", "python") == ("descriptors", "python")
    for sequence in range(2, 100, 3):
        assert classes(told, sequence, "python") == ("descriptors", "python")
        assert isinstance(say(told, sequence + 1, not_known()), Suspect)
        assert classes(told, sequence + 2, "descriptors") == ("descriptors", "python")


def test_a_class_is_told_no_more_when_many_reports_in_a_row_do_not_find_it() -> None:
    told = memory()
    classes(told, 1, "descriptors", "python")
    assert classes(told, REPORTS_TO_DROP, "python") == ("descriptors", "python")
    assert classes(told, REPORTS_TO_DROP + 1, "python") == ("python",)


def test_a_class_is_told_beside_others_when_some_reports_in_a_row_found_it() -> None:
    told = memory()
    classes(told, 1, "python")
    for sequence in range(2, 2 + REPORTS_TO_JOIN):
        assert classes(told, sequence, "descriptors", "python") == ("python",)
    assert classes(told, 2 + REPORTS_TO_JOIN, "descriptors", "python") == ("descriptors", "python")


def test_to_ask_again_is_no_further_report() -> None:
    told = memory()
    classes(told, 1, "python")
    for _ in range(100):
        assert classes(told, 2, "native") == ("python",)


def test_memory_is_pythons_or_the_c_heaps() -> None:
    told = memory()
    classes(told, 1, "python")
    for sequence in range(2, 2 + REPORTS_TO_JOIN):
        assert classes(told, sequence, "native") == ("python",)
    assert classes(told, 2 + REPORTS_TO_JOIN, "native") == ("native",)
    assert classes(told, 3 + REPORTS_TO_JOIN, "python") == ("native",)


def test_the_figures_are_those_of_the_class_that_is_told() -> None:
    told = memory()
    say(told, 1, suspect(task="shop.leak", retained_bytes_per_run=900.0))
    threads = {"growth_class": "threads", "growth_classes": ("threads",), "runs": 7_000}
    answer = say(told, 2, suspect(task="shop.leak", retained_bytes_per_run=0.0, **threads))
    assert isinstance(answer, Suspect)
    assert (answer.growth_class, answer.retained_bytes_per_run) == ("python", 900.0)
    assert answer.runs == 7_000


# --- and who holds it ---------------------------------------------------------------------------


def held(path: str, growth: float, limit: int | None = None) -> Holder:
    return Holder(path, "dict", 9, growth, limit)


def test_the_holder_that_was_told_first_stays_unless_another_explains_much_more() -> None:
    first, second = held("shop.first", 10.0), held("shop.second", 19.0)
    assert in_order((first,), (second, first)) == (first, second)
    assert in_order((first,), (held("shop.second", 21.0), first))[0].path == "shop.second"
    bounded = held("shop.first", 10.0, limit=99)
    assert in_order((first,), (second, bounded)) == (second, bounded)
    assert in_order((first,), (second,)) == (second,)
    assert in_order((first,), ()) == (first,)


def test_the_advice_is_about_what_is_told() -> None:
    told = memory()
    holders = (held("shop.first", 10.0), held("shop.second", 9.0))
    say(told, 1, suspect(task="shop.leak", holders=holders))
    answer = say(told, 2, suspect(task="shop.leak", holders=holders[::-1]))
    assert isinstance(answer, Suspect)
    assert answer.holder == "shop.first"
    assert answer.advice.startswith("shop.first grows")


# --- processes ----------------------------------------------------------------------------------


def with_main(sequence: int, *, grows: bool) -> WorkerView:
    live = history(lambda n: (40 + 4 * n * grows) * MIB)
    main = samples.process("main", 100, history=live)
    return at(sequence, view(evidence_of(nothing), processes=[main]))


def test_a_main_process_that_grows_is_told_until_it_has_not_for_long() -> None:
    told = memory()
    (found,) = diagnose([with_main(1, grows=True)], told).suspects
    assert (found.growth_class, found.since) == ("main", 100.0)
    for sequence, named in ((2, True), (REPORTS_TO_DROP, True), (REPORTS_TO_DROP + 1, False)):
        diagnosis = diagnose([with_main(sequence, grows=False)], told)
        assert bool(diagnosis.suspects) is named
        assert diagnosis.workers[0].leaking is named


def test_children_that_a_task_type_explains_are_told_no_more() -> None:
    told, growing = memory(), suspect(task=None, process="0", growth_class="python")
    told.of_processes(at(1), [growing], explained=False)
    assert len(told.of_processes(at(2), [], explained=False)) == 1
    assert told.of_processes(at(2), [], explained=True) == []
