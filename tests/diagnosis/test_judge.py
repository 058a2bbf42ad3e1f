"""Who is accused and who is not, by the shapes that growth takes."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.stats import growth
from celery_memory_exporter.agent.stats.growth import Growth
from celery_memory_exporter.agent.worker.evidence import TaskEvidence, to_evidence, together
from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.report import (
    AGES,
    WARM_RUNS,
    Container,
    Estimate,
    Evidence,
    Fill,
    Holder,
    Site,
)
from celery_memory_exporter.diagnosis.judge import diagnose
from celery_memory_exporter.diagnosis.rules import SETTLED
from celery_memory_exporter.diagnosis.verdict import Cleared, Diagnosis, Suspect
from celery_memory_exporter.fleet.snapshot import ProcessView, Snapshot, WorkerView
from tests import samples

MIB = samples.MIB
#: What the run of this number (of its type, in its process) leaves behind, in bytes.
Shape = Callable[[int], float]


def process(shape: Shape, runs: int, *, audit_every: int = 2, **kernel: float) -> TaskEvidence:
    """What one process knows after so many runs; runs without an audit are read as the meter reads
    them."""
    grown = Growth()
    chance = random.Random(runs)
    for number in range(runs):
        size = shape(number)
        start = grown.begin()
        if chance.randrange(audit_every) == 0:
            grown.add_audit(start, size / 90, 0.0)
            grown.add_kernel(
                start, *(kernel.get(name, 0.0) for name in ("fds", "threads", "children", "shared"))
            )
        else:
            grown.add_sample(start, size / 90, 0.0, only_large=True)
    return TaskEvidence(row=grown.row)


def evidence_of(shape: Shape, runs: int = 200, processes: int = 2, **options: Any) -> Evidence:
    known = together([process(shape, runs, **options) for _ in range(processes)])
    return to_evidence(known, 60.0, None, None)


def view(
    evidence: Evidence | None, *, name: str = "shop.leak", runs: int = 400, **changes: Any
) -> WorkerView:
    report = samples.report(
        tasks=[
            samples.task(
                name,
                runs={"succeeded": runs},
                growth_bytes=0.0,
                release_bytes=0.0,
                evidence=evidence,
            )
        ],
        containers=changes.pop("containers", []),
        pool=changes.pop("pool", "prefork"),
        child_memory_limit_bytes=changes.pop("child_memory_limit_bytes", None),
    )
    task = changes.pop("task", {})
    report = dataclasses.replace(report, tasks=[dataclasses.replace(report.tasks[0], **task)])
    processes = changes.pop("processes", report.processes)
    value = WorkerView(
        nodename="celery@web1",
        up=True,
        live=True,
        report=report,
        processes=tuple(ProcessView(each) for each in processes),
        cgroup=CgroupMemory(),
    )
    return dataclasses.replace(value, **changes)


def diagnosis_of(*workers: WorkerView) -> Diagnosis:
    return diagnose(Snapshot(workers))


def verdict_on(evidence: Evidence, **changes: Any) -> Suspect | Cleared:
    diagnosis = diagnosis_of(view(evidence, **changes))
    (verdict,) = [*diagnosis.suspects, *diagnosis.cleared]
    return verdict


def leak(_: int) -> float:
    return 1000.0


# --- leaks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64.0, 1000.0, 1.0 * MIB])
def test_a_task_that_leaves_as_much_behind_in_each_run_leaks(size: float) -> None:
    verdict = verdict_on(evidence_of(lambda _: size))
    assert isinstance(verdict, Suspect)
    assert verdict.retained_bytes_per_run == pytest.approx(size, rel=0.1)
    assert verdict.retained_bytes_per_hour == pytest.approx(size * 400 * 60, rel=0.1)
    assert (verdict.runs, verdict.processes, verdict.growing_processes) == (400, 2, 2)
    assert verdict.audited_runs == 5
    assert verdict.confidence > 0.95


def test_a_leak_in_one_run_of_fifty_counts() -> None:
    verdict = verdict_on(evidence_of(lambda number: 1.0 * MIB if number % 50 == 7 else 0.0))
    assert isinstance(verdict, Suspect)
    assert verdict.retained_bytes_per_run == pytest.approx(MIB / 50, rel=0.3)


def test_recycling_hides_no_leak() -> None:
    evidence = evidence_of(leak, runs=25, processes=16)
    assert isinstance(verdict_on(evidence), Suspect)


def test_noise_around_a_leak_does_not_hide_it() -> None:
    noise = random.Random(1)
    assert isinstance(verdict_on(evidence_of(lambda _: 200 + noise.gauss(0, 300))), Suspect)


@given(
    size=st.floats(100, 10 * MIB),
    runs=st.integers(SETTLED + 10, 3_000),
    processes=st.integers(1, 4),
    every=st.integers(1, 4),
)
def test_every_steady_leak_is_named_whatever_its_size(
    size: float, runs: int, processes: int, every: int
) -> None:
    assert isinstance(
        verdict_on(evidence_of(lambda _: size, runs, processes, audit_every=every)), Suspect
    )


def test_nothing_is_said_before_a_process_has_seen_runs_enough() -> None:
    verdict = verdict_on(evidence_of(leak, runs=90))
    assert isinstance(verdict, Cleared)
    assert verdict.growth_class == "unsettled"


def test_only_failing_runs_leak() -> None:
    evidence = evidence_of(lambda number: 3000.0 if number % 2 else 0.0, audit_every=1)
    total = sum(evidence.profile.blocks) * 90 + sum(evidence.profile.native)
    verdict = verdict_on(dataclasses.replace(evidence, failed_audits=200.0, failed_bytes=total))
    assert isinstance(verdict, Suspect)
    assert verdict.outcome == "failed"
    assert "failing" in verdict.advice


# --- innocents ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(lambda _: 0.0, id="nothing"),
        pytest.param(lambda number: 5000.0 if number < 60 else 0.0, id="a cache that fills"),
        pytest.param(lambda number: 5000.0 if number < 90 else 0.0, id="a cache that fills late"),
        pytest.param(
            lambda number: 1e6 if number in (0, 3, 11) else 0.0, id="imports and connections"
        ),
        pytest.param(lambda number: 10.0 * MIB if number == 60 else 0.0, id="one step"),
        pytest.param(
            lambda number: 1000.0 if number % 50 else -49_000.0, id="a cache that is cleared"
        ),
        pytest.param(lambda number: 3000.0 * 0.95**number, id="slower and slower"),
        pytest.param(lambda number: (-1) ** number * 1000.0, id="up and down"),
    ],
)
def test_what_stops_growing_is_no_leak(shape: Shape) -> None:
    for runs in (110, 150, 200, 400, 1000):
        for processes in (1, 2, 8):
            verdict = verdict_on(evidence_of(shape, runs, processes))
            assert isinstance(verdict, Cleared), (runs, processes, verdict)


@given(st.lists(st.floats(-300, 300), min_size=40, max_size=40), st.integers(1, 4))
def test_noise_without_a_trend_is_no_leak(noise: list[float], processes: int) -> None:
    balanced = [*noise, *(-value for value in noise)]
    verdict = verdict_on(
        evidence_of(lambda number: balanced[number % 80], 560, processes, audit_every=1)
    )
    assert isinstance(verdict, Cleared)


def test_some_hundred_native_bytes_in_few_runs_are_the_c_heaps_caches() -> None:
    grown = Growth()
    for number in range(200):
        grown.add_audit(grown.begin(), 0.0, 720.0 if number % 4 == 0 else 0.0)
    known = together([TaskEvidence(row=grown.row)])
    assert isinstance(verdict_on(to_evidence(known, 60.0, None, None)), Cleared)


def test_a_container_with_a_bound_is_no_leak() -> None:
    held = [Holder("shop.queries", "deque", 4000, 4000.0, limit=9000)]
    verdict = verdict_on(dataclasses.replace(evidence_of(leak), holders=held))
    assert isinstance(verdict, Cleared)
    assert verdict.growth_class == "bounded"
    assert "9000" in verdict.reason


def test_one_process_of_many_is_not_evidence_enough() -> None:
    known = together([process(leak, 200), *(process(lambda _: 0.0, 200) for _ in range(3))])
    assert isinstance(verdict_on(to_evidence(known, 60.0, None, None)), Cleared)


def test_resident_memory_that_stays_while_live_memory_does_not_is_the_allocators() -> None:
    verdict = verdict_on(
        evidence_of(lambda _: 0.0), task={"growth_bytes": 80.0 * MIB, "release_bytes": 10.0 * MIB}
    )
    assert isinstance(verdict, Cleared)
    assert verdict.growth_class == "allocator"
    assert "jemalloc" in verdict.advice


def test_garbage_in_single_readings_is_taken_off() -> None:
    grown = Growth()
    for number in range(200):
        start = grown.begin()
        if number % 2:
            grown.add_sample(start, 1.0, 1.0 * MIB, only_large=True)
        else:
            grown.add_audit(start, 0.0, 0.0)
            grown.add_garbage(start, 0.0, 1.0 * MIB)
    verdict = verdict_on(to_evidence(together([TaskEvidence(row=grown.row)]), 60.0, None, None))
    assert isinstance(verdict, Cleared)
    assert verdict.growth_class == "garbage"


def test_workers_without_an_agent_or_gone_are_not_judged() -> None:
    without = dataclasses.replace(view(None), report=None)
    gone = view(evidence_of(leak), live=False)
    assert diagnosis_of(without, gone) == Diagnosis()
    assert diagnosis_of(view(None)).suspects == ()


# --- classes ------------------------------------------------------------------------------------


def native_evidence(**changes: Any) -> Evidence:
    grown = Growth()
    for _ in range(200):
        grown.add_audit(grown.begin(), 0.0, 50_000.0)
    return dataclasses.replace(
        to_evidence(together([TaskEvidence(row=grown.row)]), 60.0, None, None), **changes
    )


def test_native_bytes_without_blocks_or_survivors_are_native() -> None:
    verdict = verdict_on(native_evidence())
    assert isinstance(verdict, Suspect)
    assert verdict.growth_class == "native"


@pytest.mark.parametrize(
    "changes",
    [
        {"holders": [Holder("shop.texts", "dict", 400, 400.0)]},
        {"sites": [Site("shop.py:3", "bytes", 200_000.0)], "deep_audits": 4, "traced_audits": 4},
        {"survivors": {"bytearray": 200}},
    ],
)
def test_native_bytes_of_python_objects_are_pythons(changes: dict[str, Any]) -> None:
    verdict = verdict_on(native_evidence(**changes))
    assert isinstance(verdict, Suspect)
    assert verdict.growth_class == "python"


@pytest.mark.parametrize(
    ("figure", "growth_class"),
    [("fds", "descriptors"), ("threads", "threads"), ("children", "processes")],
)
def test_what_the_kernel_counts(figure: str, growth_class: str) -> None:
    verdict = verdict_on(evidence_of(lambda _: 0.0, **{figure: 1.0}))
    assert isinstance(verdict, Suspect)
    assert (verdict.growth_class, verdict.retained_count_per_run) == (growth_class, 1.0)


def test_the_class_that_tells_most_comes_first_and_the_others_are_named() -> None:
    verdict = verdict_on(evidence_of(leak, fds=1.0))
    assert isinstance(verdict, Suspect)
    assert verdict.growth_classes == ("descriptors", "python")


@pytest.mark.parametrize(
    ("estimate", "accused"),
    [
        (Estimate(5000.0, 200.0, 5000.0, 400.0, 400, 40), True),
        (Estimate(5000.0, 2000.0, 5000.0, 4000.0, 400, 40), False),
        (Estimate(5000.0, 200.0, 10.0, 300.0, 400, 40), False),
        (Estimate(5000.0, 200.0, 5000.0, 400.0, 40, 40), False),
        (Estimate(5000.0, None, 5000.0, None, 400, 40), False),
    ],
)
def test_files_in_memory_are_told_by_least_squares(estimate: Estimate, accused: bool) -> None:
    verdict = verdict_on(
        dataclasses.replace(evidence_of(lambda _: 0.0, shared=5000.0), tmpfs=estimate)
    )
    assert isinstance(verdict, Suspect) is accused
    assert not accused or verdict.growth_class == "shared"


def test_what_other_programs_write_to_tmpfs_is_no_task_types() -> None:
    estimate = Estimate(5000.0, 200.0, 5000.0, 400.0, 400, 40)
    assert isinstance(
        verdict_on(dataclasses.replace(evidence_of(lambda _: 0.0), tmpfs=estimate)), Cleared
    )


@pytest.mark.parametrize("pool", ["threads", "gevent", "eventlet"])
def test_where_runs_overlap_least_squares_decide(pool: str) -> None:
    evidence = evidence_of(lambda _: 0.0, runs=5, processes=1, audit_every=1000)
    leaking = dataclasses.replace(
        evidence, overlapping=Estimate(1800.0, 50.0, 1750.0, 90.0, 400, 40), collections=3
    )
    innocent = dataclasses.replace(
        evidence, overlapping=Estimate(30.0, 50.0, 20.0, 90.0, 400, 40), collections=3
    )
    assert isinstance(verdict_on(leaking, pool=pool), Suspect)
    assert isinstance(verdict_on(innocent, pool=pool), Cleared)
    early = verdict_on(dataclasses.replace(leaking, collections=2), pool=pool)
    assert isinstance(early, Cleared)
    assert early.growth_class == "unsettled", "it may be garbage"


def alone(size: float) -> Evidence:
    """Of a pool whose runs overlap: two hundred runs that happened to be alone, each read before
    and after."""
    grown = Growth()
    for _ in range(200):
        grown.add_sample(grown.begin(), size / 90, 0.0, only_large=False)
    told = to_evidence(
        together([TaskEvidence(row=grown.row)]),
        60.0,
        Estimate(1800.0, 50.0, 1750.0, 90.0, 400, 40),
        None,
    )
    return dataclasses.replace(told, collections=3)


@pytest.mark.parametrize(
    ("size", "accused"), [(1800.0, True), (1000.0, True), (100.0, False), (0.0, False)]
)
def test_runs_that_happened_to_be_alone_contradict_least_squares(
    size: float, accused: bool
) -> None:
    assert isinstance(verdict_on(alone(size), pool="gevent"), Suspect) is accused


def test_where_runs_overlap_a_container_that_grows_with_a_types_runs_is_proof_enough() -> None:
    blurred = Estimate(1800.0, 5000.0, 1750.0, 9000.0, 400, 40)
    evidence = dataclasses.replace(
        evidence_of(lambda _: 0.0, processes=1, audit_every=1000), overlapping=blurred
    )
    for share, accused in (
        (Estimate(1.0, 0.01, 1.0, 0.02, 400, 40), True),
        (Estimate(0.3, 0.01, 0.0, 0.02, 400, 40), False),
    ):
        held = [Holder("shop._my_app_cache", "dict", 400, 400.0, share=share)]
        verdict = verdict_on(dataclasses.replace(evidence, holders=held), pool="threads")
        assert isinstance(verdict, Suspect) is accused


def test_cycles_stay_where_the_collector_is_off() -> None:
    grown = Growth()
    for _ in range(200):
        start = grown.begin()
        grown.add_audit(start, 0.0, 0.0)
        grown.add_garbage(start, 10.0, 5000.0)
    evidence = to_evidence(together([TaskEvidence(row=grown.row)]), 60.0, None, None)
    off = [samples.process("main", 100), samples.process("0", 101, gc_enabled=0)]
    verdict = verdict_on(evidence, processes=off)
    assert isinstance(verdict, Suspect)
    assert verdict.growth_class == "garbage"
    before_the_fork = [samples.process("main", 100, gc_enabled=0), samples.process("0", 101)]
    assert isinstance(verdict_on(evidence, processes=before_the_fork), Cleared)


def read_only(size: float) -> Evidence:
    """Of processes whose heap the application froze: each run is read before and after, and none is
    audited."""
    grown = Growth()
    for _ in range(200):
        grown.add_sample(grown.begin(), size / 90, 0.0, only_large=False)
    return to_evidence(together([TaskEvidence(row=grown.row)] * 2), 60.0, None, None)


@pytest.mark.parametrize(("floor", "accused"), [(4.0 * MIB, True), (0.0, False)])
def test_without_audits_a_process_has_to_grow_from_floor_to_floor(
    floor: float, accused: bool
) -> None:
    """Garbage that waits for the collector looks like what stays, until it is collected."""
    history = [
        [float(at), 0.0, 0.0, 50 * MIB + at / 15 * floor + (at % 4) * MIB / 8, 0.0, 5.0, 1.0]
        for at in range(16)
    ]
    processes = [samples.process("main", 100), samples.process("0", 101, history=history)]
    verdict = verdict_on(read_only(20_000.0), processes=processes)
    assert isinstance(verdict, Suspect) is accused


# --- how its container fills up -----------------------------------------------------------------


def filled(
    shape: Shape, runs: int, gains: Callable[[int], float], limit: int | None = None
) -> Evidence:
    """Two processes in which the runs of these numbers also add so many items to a container."""
    evidence = evidence_of(shape, runs)
    first = AGES.index(WARM_RUNS)
    bounds = [each for each in AGES[first:] if each < runs] + [runs]
    spans = [range(start, end) for start, end in pairwise(bounds)]
    fill = Fill(
        "shop.held",
        [2.0 * sum(map(gains, span)) for span in spans],
        [2.0 * len(span) for span in spans],
    )
    return dataclasses.replace(
        evidence, holders=[Holder("shop.held", "dict", 99, 20.0, limit)], fills=[fill]
    )


def some(share: float, seed: int) -> Shape:
    """One in so many runs, by chance, and the same ones each time."""
    chance = random.Random(seed)
    drawn = [chance.random() < share for _ in range(1_000)]
    return lambda number: 3000.0 * drawn[number]


@pytest.mark.parametrize("full", [60, 90, 100])
def test_a_cache_that_has_filled_is_no_leak_however_short_a_time_ago(full: int) -> None:
    def shape(number: int) -> float:
        return 3000.0 if number < full else 0.0

    for runs in (*range(105, 140), 200, 400):
        assert isinstance(verdict_on(filled(shape, runs, lambda number: number < full)), Cleared), (
            runs
        )


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_in_some_runs_is_told_by_what_its_container_gains_in_all(seed: int) -> None:
    shape = some(0.2, seed)
    assert isinstance(verdict_on(filled(shape, 200, lambda number: shape(number) > 0)), Suspect)


@pytest.mark.parametrize("seed", range(5))
def test_a_cache_that_is_filled_by_chance_gains_ever_less(seed: int) -> None:
    chance, seen = random.Random(seed), set[int]()
    new = [len(seen) < len(seen := seen | {chance.randrange(40)}) for _ in range(200)]
    assert isinstance(
        verdict_on(filled(lambda number: 3000.0 * new[number], 200, new.__getitem__)), Cleared
    )


def test_a_container_that_slows_down_a_little_in_a_long_life_still_leaks() -> None:
    def gains(number: int) -> float:
        return 1.0 if number < 10_000 else 0.8

    assert isinstance(verdict_on(filled(lambda _: 3000.0, 20_000, gains)), Suspect)


def test_what_is_bounded_by_its_code_is_no_leak_while_it_fills() -> None:
    assert isinstance(verdict_on(filled(leak, 200, lambda _: 1.0, limit=500)), Cleared)
    assert isinstance(verdict_on(filled(leak, 200, lambda _: 1.0)), Suspect)


def test_an_unbounded_container_beside_a_bounded_one_is_named_first() -> None:
    evidence = filled(leak, 200, lambda _: 1.0, limit=500)
    both = dataclasses.replace(
        evidence, holders=[*evidence.holders, Holder("shop.more", "list", 50, 10.0)]
    )
    verdict = verdict_on(both)
    assert isinstance(verdict, Suspect)
    assert verdict.holder == "shop.more"
    little = dataclasses.replace(
        evidence, holders=[*evidence.holders, Holder("shop.more", "list", 50, 1.0)]
    )
    assert isinstance(verdict_on(little), Cleared)


@pytest.mark.parametrize(("full", "accused"), [(1_000, True), (80, False), (0, False)])
def test_a_buffer_that_keeps_what_runs_write_to_it_leaks(full: int, accused: bool) -> None:
    """It grows by an eighth of itself now and then, which audits miss."""
    evidence = filled(lambda _: 0.0, 200, lambda number: 1000.0 if number < full else 0.0)
    buffer = [Holder("shop.held", "bytearray", 400_000, 10_000.0)]
    assert isinstance(verdict_on(dataclasses.replace(evidence, holders=buffer)), Suspect) is accused


def test_a_full_cache_hides_no_leak_beside_it() -> None:
    """The deep audits that saw the cache grow were early ones: it is the holder that is told first
    for good."""
    for limit in (None, 70):
        evidence = filled(leak, 5_000, lambda number: number < 70, limit=limit)
        assert isinstance(verdict_on(evidence), Suspect), (
            "what it leaves behind now is in no container that is known"
        )
    both = filled(leak, 5_000, lambda number: number < 70)
    leaking = Fill("shop.leaked", [float(runs) for runs in both.fills[0].runs], both.fills[0].runs)
    beside = Holder("shop.leaked", "list", 10_000, 15.0)
    assert isinstance(
        verdict_on(
            dataclasses.replace(both, holders=[*both.holders, beside], fills=[*both.fills, leaking])
        ),
        Suspect,
    )


@pytest.mark.parametrize("first", [20, 95])
def test_descriptors_opened_once_are_no_leak(first: int) -> None:
    grown = Growth()
    for number in range(200):
        start = grown.begin()
        grown.add_audit(start, 0.0, 0.0)
        grown.add_kernel(start, 10.0 if number == first else 0.0, 0.0, 0.0, 0.0)
    assert isinstance(
        verdict_on(to_evidence(together([TaskEvidence(row=grown.row)]), 60.0, None, None)), Cleared
    )


def test_a_single_run_alone_does_not_outweigh_least_squares() -> None:
    grown = Growth()
    for number in range(60):
        start = grown.begin()
        if number == 50:
            grown.add_sample(start, 500.0, 0.0, only_large=False)
    evidence = to_evidence(
        together([TaskEvidence(row=grown.row)]),
        60.0,
        Estimate(1800.0, 50.0, 1750.0, 90.0, 400, 40),
        None,
    )
    verdict = verdict_on(dataclasses.replace(evidence, collections=3), pool="gevent")
    assert isinstance(verdict, Suspect)
    assert verdict.retained_bytes_per_run == 1800.0


@given(st.lists(st.tuples(st.floats(-100, 1e6), st.floats(0, 1e6)), max_size=17))
def test_whatever_a_fill_tells_there_is_a_verdict(fill: list[tuple[float, float]]) -> None:
    gains, runs = [list(column) for column in zip(*fill, strict=True)] if fill else ([], [])
    evidence = dataclasses.replace(
        evidence_of(leak),
        holders=[Holder("shop.held", "dict", 9, 9.0)],
        fills=[Fill("shop.held", gains, runs)],
    )
    assert verdict_on(evidence)


def test_a_table_that_all_objects_are_in_grows_in_steps_ever_rarer() -> None:
    """As a pickler's memo: sixteen bytes for each object, and twice as many when it is full."""
    grown = Growth()
    for number in range(200):
        step = 20 * number < (full := 2 ** (20 * number + 20).bit_length() // 2) <= 20 * number + 20
        grown.add_audit(grown.begin(), 20.0, 16.0 * full if step else 0.0)
    assert isinstance(
        verdict_on(to_evidence(together([TaskEvidence(row=grown.row)] * 2), 60.0, None, None)),
        Suspect,
    )


# --- what is told with it -----------------------------------------------------------------------


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
    assert [(each.site, each.bytes_per_run) for each in verdict.sites] == [("shop.py:71", 1000.0)]
    assert "shop._my_app_cache" in verdict.advice
    assert "shop.py:71" in verdict.advice


def test_the_worst_comes_first() -> None:
    small, large = (
        view(evidence_of(leak), name="small"),
        view(evidence_of(lambda _: 9000.0), name="large"),
    )
    assert [each.task for each in diagnosis_of(small, large).suspects] == ["large", "small"]


def test_time_to_the_memory_limit_at_the_present_rate() -> None:
    worker = view(evidence_of(lambda _: 1.0 * MIB), child_memory_limit_bytes=200 * MIB)
    (verdict,) = diagnosis_of(worker).workers
    assert verdict.leaking
    used, rate = (50 + 70) * MIB, 400 * 60 * MIB
    assert verdict.seconds_to_limit == pytest.approx((400 * MIB - used) / rate * 3600, rel=0.1)


# --- processes ----------------------------------------------------------------------------------


def history(
    live: Callable[[int], float], anon: Callable[[int], float] | None = None, free: float = 0.0
) -> list[list[float]]:
    points = range(16)
    return [[60.0 * n, 90.0 * MIB, (anon or live)(n), live(n), free * n, 20.0, 2.0] for n in points]


def with_main(live: Callable[[int], float], **changes: Any) -> WorkerView:
    processes = [samples.process("main", 100, history=history(live)), samples.process("0", 101)]
    return view(evidence_of(lambda _: 0.0), processes=processes, **changes)


def test_a_main_process_that_grows_is_named_without_a_task() -> None:
    (suspect,) = diagnosis_of(with_main(lambda n: (40 + 4 * n) * MIB)).suspects
    assert (suspect.task, suspect.growth_class, suspect.process) == (None, "main", "main")


def test_requests_that_wait_in_the_main_process_explain_its_growth() -> None:
    waiting = [Container("celery.worker.state.requests", "dict", 50_000, 50_000)]
    (suspect,) = diagnosis_of(
        with_main(lambda n: (40 + min(n, 3) * 20) * MIB, containers=waiting)
    ).suspects
    assert suspect.holder == "celery.worker.state.requests"


@pytest.mark.parametrize(
    "live",
    [
        lambda n: 40 * MIB,
        lambda n: (40 + 30 * (n % 3)) * MIB,
        lambda n: (40 + (20 if n else 0)) * MIB,
    ],
)
def test_a_main_process_that_is_steady_or_goes_up_and_down_is_not_accused(
    live: Callable[[int], float],
) -> None:
    assert diagnosis_of(with_main(live)).suspects == ()


def test_memory_that_the_allocator_keeps_is_told_of_the_worker() -> None:
    child = samples.process(
        "0",
        101,
        history=history(lambda n: 30.0 * MIB, lambda n: (30.0 + 4 * n) * MIB, free=3.5 * MIB),
    )
    worker = view(evidence_of(lambda _: 0.0), processes=[samples.process("main", 100), child])
    (verdict,) = diagnosis_of(worker).workers
    assert (verdict.leaking, verdict.growth_class) == (False, "allocator")


def test_ages_are_those_that_the_verdict_counts_by() -> None:
    assert {growth.WARM_RUNS, SETTLED, 5} <= set(growth.AGES)
