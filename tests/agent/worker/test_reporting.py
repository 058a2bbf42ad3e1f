"""The report, out of what is known."""

from __future__ import annotations

import dataclasses
import os
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.meter.books import Costs
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats import tally
from celery_memory_exporter.agent.worker.evidence import NAMES
from celery_memory_exporter.agent.worker.ledger import Ledger
from celery_memory_exporter.agent.worker.reporting import Reporter, TopTypes, concurrency
from celery_memory_exporter.common.codec import decode, encode
from celery_memory_exporter.common.evidence import Estimate, Holder
from celery_memory_exporter.common.report import LostRuns, ObjectCount, WorkerReport
from tests.agent.worker.known import profile, sources, totals

KEY = ("shop.t", "q")


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(200, start_ticks=11)


def report(reporter: Reporter, **changes: Any) -> WorkerReport:
    return reporter.report(**{"native": True, "reports_dropped": 0, "final": False, **changes})


def test_the_exporter_reads_a_report_as_it_was_made(ledger: Ledger) -> None:
    ledger.add_child(os.getpid(), 0, 70)
    ledger.apply(totals(os.getpid(), 5))
    ledger.apply(profile(os.getpid(), 4))
    made = report(Reporter(sources(ledger)))
    assert decode(encode(made)) == made


def test_a_worker_and_its_settings(ledger: Ledger) -> None:
    settings = Settings(interval_seconds=2.0, runtime_buckets=(1.0, 2.0), queue_wait_buckets=(3.0,))
    made = report(Reporter(sources(ledger, settings)), reports_dropped=7)
    assert (made.worker, made.pool, made.concurrency) == ("celery@web1", "prefork", 4)
    assert (made.interval_seconds, made.reports_dropped, made.final) == (2.0, 7, 0)
    assert (made.bounds.runtime_seconds, made.bounds.queue_wait_seconds) == ([1.0, 2.0], [3.0])
    assert (made.instance.pid, made.instance.start_ticks) == (os.getpid(), 11)


def test_reports_are_numbered_and_of_one_instance(ledger: Ledger) -> None:
    reporter = Reporter(sources(ledger))
    first, second = report(reporter), report(reporter, final=True)
    assert (first.sequence, second.sequence, second.final) == (1, 2, 1)
    assert first.instance == second.instance


def test_the_main_process_comes_first_and_the_younger_child_has_the_slot(ledger: Ledger) -> None:
    """A successor may have been forked since the pool was looked at."""
    for pid, slot, ticks in ((1, 1, 5), (2, 0, 9), (4, 0, 4), (3, -1, 9)):
        ledger.add_child(pid, slot, ticks)
    made = report(Reporter(sources(ledger)))
    assert [(each.process, each.pid) for each in made.processes] == [
        ("main", os.getpid()),
        ("0", 2),
        ("1", 1),
    ]


def test_task_types_are_sorted_and_their_figures_those_of_all_processes(ledger: Ledger) -> None:
    for pid in (1, 2):
        ledger.add_child(pid, pid, None)
        ledger.apply(totals(pid, 5, ("b", "q")))
        ledger.apply(totals(pid, 1, ("a", "q")))
        ledger.apply(profile(pid, 4, ("b", "q")))
    first, second = report(Reporter(sources(ledger))).tasks
    assert (first.name, first.runs, first.evidence) == ("a", {"succeeded": 2}, None)
    assert (second.name, second.runs, second.seconds) == (
        "b",
        {"succeeded": 10},
        {"succeeded": 5.0},
    )
    assert (second.retained_blocks, second.retained_runs) == (8.0, 8)
    assert second.evidence is not None
    assert second.evidence.profile.audited[1] == 8


def test_bytes_of_the_c_heap_are_left_out_where_they_cannot_be_told(ledger: Ledger) -> None:
    ledger.main.apply(totals(1, 5))
    assert report(Reporter(sources(ledger)), native=False).tasks[0].retained_native_bytes is None
    assert report(Reporter(sources(ledger))).tasks[0].retained_native_bytes == 0.0


def test_a_type_has_been_running_since_the_report_before_the_one_that_first_told_of_it(
    ledger: Ledger,
) -> None:
    reporter = Reporter(sources(ledger))
    report(reporter)
    ledger.main.apply(totals(1, 5))
    seconds = []
    for audits in range(3):
        ledger.main.apply(profile(1, 4 + audits))
        (task,) = report(reporter).tasks
        assert task.evidence is not None
        seconds.append(task.evidence.seconds)
    assert 0 <= seconds[0] <= seconds[-1]


def test_what_is_lost_and_what_it_costs(ledger: Ledger) -> None:
    for pid, task in ((1, "b"), (2, "a")):
        ledger.add_child(pid, 0, None)
        ledger.children[pid].costs = Costs(0.5, 1, 2)
        ledger.remove_child(pid, "oom", task)
    ledger.main.costs = Costs(0.25, 4, 0)
    made = report(Reporter(sources(ledger)))
    assert made.lost == [LostRuns("a", "oom", 1), LostRuns("b", "oom", 1)]
    assert (made.children_started, made.children_exited) == (2, {"oom": 2})
    assert (made.overhead_seconds, made.errors) == (1.25, 6)
    assert made.dropped == {"tasks": 4, "traffic": 0}


def test_containers_are_those_that_grow_and_the_requests_that_wait(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.main.containers = [
        GrowingContainer(f"shop.c{number}", "dict", 3, number, None) for number in range(2 * NAMES)
    ]
    monkeypatch.setattr(state, "requests", {"a": 1, "b": 2})
    made = report(Reporter(sources(ledger))).containers
    assert (made[0].path, made[0].items) == ("celery.worker.state.requests", 2)
    assert [each.growth for each in made[1:]] == list(range(2 * NAMES - 1, NAMES, -1))
    monkeypatch.setattr(state, "requests", {})
    assert len(report(Reporter(sources(ledger))).containers) == NAMES - 1


def test_object_types_are_the_fastest_growing(ledger: Ledger) -> None:
    ledger.main.types = {"dict": (500, 1, 0), "shop.Cart": (40, 30, 20), "str": (9, 9, 9)}
    made = report(Reporter(sources(ledger, Settings(max_object_types=2))))
    assert made.objects == [ObjectCount("shop.Cart", 40, 30)]


class Overlapping:
    """What is known where runs overlap, of one type."""

    SHARE = Estimate(1_000.0, 1.0, 1_000.0, 1.0, 100, 10)

    def estimates(self) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
        return {"shop.t": self.SHARE}, {}

    def holders(self, name: str) -> list[Holder]:
        return [Holder(f"held by {name}", "dict", 3, 2.0)]

    def collections(self) -> int:
        return 5


def test_where_runs_overlap_shares_tell_who_holds_it(ledger: Ledger) -> None:
    for name in ("shop.t", "shop.u"):
        ledger.main.apply(totals(1, 5, (name, "q")))
        ledger.main.apply(profile(1, 4, (name, "q")))
    shares: Any = Overlapping()
    made = report(Reporter(dataclasses.replace(sources(ledger), shares=shares)))
    shared, other = made.tasks
    assert shared.evidence is not None
    assert shared.evidence.overlapping == Overlapping.SHARE
    assert [each.path for each in shared.evidence.holders] == ["held by shop.t"]
    assert shared.evidence.collections == 5
    assert other.evidence is not None
    assert (other.evidence.overlapping, other.evidence.holders) == (None, [])


@pytest.mark.parametrize(("grown", "told"), [(None, 4), (9, 9)])
def test_concurrency_is_the_pools_once_it_has_changed(grown: int | None, told: int) -> None:
    worker = SimpleNamespace(concurrency=4, pool=SimpleNamespace(num_processes=grown))
    assert concurrency(worker) == told
    assert concurrency(SimpleNamespace(concurrency=4, pool=None)) == 4


def test_types_beyond_the_cap_are_one(ledger: Ledger) -> None:
    ledger = Ledger(max_tasks=1)
    for name in "abc":
        ledger.main.apply(totals(1, 1, (name, "q")))
    assert [task.name for task in report(Reporter(sources(ledger))).tasks] == ["a", tally.OTHER[0]]


def test_a_type_stays_among_the_top_until_it_is_clearly_out() -> None:
    top = TopTypes(4)
    assert top.choose(
        {"a": (0, 0, 9), "b": (0, 0, 8), "c": (0, 0, 7), "d": (0, 0, 6), "e": (0, 0, 5)}
    ) == ["a", "b"]
    assert top.choose(
        {"c": (0, 0, 9), "d": (0, 0, 8), "a": (0, 0, 7), "b": (0, 0, 6), "e": (0, 0, 5)}
    ) == ["c", "d", "a", "b"]
    assert top.choose(
        {"c": (0, 0, 9), "d": (0, 0, 8), "e": (0, 0, 7), "f": (0, 0, 6), "a": (0, 0, 5)}
    ) == ["c", "d"]


# --- whose evidence is told ----------------------------------------------------------------------


def told(made: WorkerReport) -> list[str]:
    """Task types whose evidence a report has."""
    return [task.name for task in made.tasks if task.evidence is not None]


def two_types(ledger: Ledger) -> Reporter:
    """Of which the first report has told."""
    for name in ("a", "b"):
        ledger.main.apply(totals(1, 5, (name, "q")))
        ledger.main.apply(profile(1, 4, (name, "q")))
    reporter = Reporter(sources(ledger))
    made = report(reporter)
    assert (told(made), made.partial) == (["a", "b"], None)
    return reporter


def test_evidence_is_told_of_types_that_ran_since_and_figures_of_all(ledger: Ledger) -> None:
    reporter = two_types(ledger)
    ledger.main.apply(profile(1, 4, ("a", "q")))  # it has told so before
    ledger.main.apply(totals(1, 9, ("b", "q")))
    ledger.main.apply(profile(1, 8, ("b", "q")))
    made = report(reporter)
    assert (told(made), made.partial) == (["b"], 1)
    assert [task.runs for task in made.tasks] == [{"succeeded": 5}, {"succeeded": 9}]
    assert [task.retained_runs for task in made.tasks] == [4, 8]


def test_the_evidence_of_each_type_is_told_at_every_fourth_report(ledger: Ledger) -> None:
    reporter = two_types(ledger)
    rounds = [told(report(reporter)) for _ in range(8)]
    assert rounds[4:] == rounds[:4]
    assert sorted(name for each in rounds[:4] for name in each) == ["a", "b"]
    assert max(map(len, rounds)) == 1, "not all in one"


def test_what_a_report_told_that_could_not_be_sent_is_told_again(ledger: Ledger) -> None:
    reporter = two_types(ledger)
    for dropped in (1, 2):
        made = report(reporter, reports_dropped=dropped)
        assert told(made) == ["a", "b"]
    assert len(told(report(reporter, reports_dropped=2))) < 2


def test_the_last_report_tells_everything(ledger: Ledger) -> None:
    made = report(two_types(ledger), final=True)
    assert (told(made), made.partial) == (["a", "b"], None)


def test_what_a_child_that_is_gone_leaves_is_a_change(ledger: Ledger) -> None:
    reporter = two_types(ledger)
    ledger.add_child(7, 0, None)
    ledger.apply(profile(7, 4, ("b", "q")))
    report(reporter)
    ledger.remove_child(7, "tasks", None)
    assert "b" in told(report(reporter))
