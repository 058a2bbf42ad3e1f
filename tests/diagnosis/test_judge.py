"""Who is accused and who is not, by the shapes that growth takes."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.evidence import Estimate, Evidence, Fill, Holder
from celery_memory_exporter.common.kernel import CgroupMemory
from celery_memory_exporter.common.names import OTHER
from celery_memory_exporter.diagnosis.rules import SETTLED
from celery_memory_exporter.diagnosis.verdict import Cleared, Diagnosis, Suspect
from tests import samples
from tests.diagnosis.evidence import (
    MIB,
    Process,
    Shape,
    diagnosis_of,
    evidence_of,
    fill_of,
    filled,
    history,
    leak,
    nothing,
    process,
    task,
    told_by,
    verdict_on,
    view,
)

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


# --- innocents ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(nothing, id="nothing"),
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
    seen = Process()
    for number in range(200):
        seen.audit(native=720.0 if number % 4 == 0 else 0.0)
    assert isinstance(verdict_on(told_by(seen)), Cleared)


def test_nothing_is_said_before_a_process_has_seen_runs_enough() -> None:
    verdict = verdict_on(evidence_of(leak, runs=90))
    assert isinstance(verdict, Cleared)
    assert (verdict.growth_class, verdict.reason) == ("unsettled", "too few runs yet")


def test_nothing_is_said_of_later_runs_that_nobody_measured() -> None:
    seen = Process()
    for _ in range(400):
        seen.run()
    verdict = verdict_on(told_by(seen))
    assert isinstance(verdict, Cleared)
    assert verdict.growth_class == "unsettled"
    assert verdict.reason == "none of its later runs has been audited yet"


def test_a_worker_is_well_when_each_of_its_task_types_is_known_to_be() -> None:
    def class_of(*evidence: Evidence) -> str:
        tasks = [task(each, f"shop.t{number}") for number, each in enumerate(evidence)]
        (verdict,) = diagnosis_of(view(None, tasks=tasks)).workers
        return verdict.growth_class

    well, young = evidence_of(nothing), evidence_of(nothing, runs=20)
    assert class_of(well, well) == "steady"
    assert class_of(well, young) == class_of(young) == class_of() == "unsettled"
    assert class_of(young, evidence_of(leak)) == "python"


def test_one_process_of_many_is_not_evidence_enough() -> None:
    seen = [process(leak, 200), *(process(nothing, 200) for _ in range(3))]
    verdict = verdict_on(told_by(*seen))
    assert isinstance(verdict, Cleared)
    assert verdict.reason == "seen in fewer than half of the processes"
    assert isinstance(verdict_on(told_by(*seen[:2])), Suspect)


def test_workers_without_an_agent_or_gone_are_not_judged() -> None:
    without = dataclasses.replace(view(None), report=None)
    gone = view(evidence_of(leak), live=False)
    assert diagnosis_of(without, gone) == Diagnosis()
    assert diagnosis_of(view(None)).suspects == ()


def test_the_sum_of_task_types_beyond_the_limit_is_not_judged() -> None:
    diagnosis = diagnosis_of(view(evidence_of(leak), name=OTHER))
    assert (diagnosis.suspects, diagnosis.cleared) == ((), ())


def test_one_type_on_two_queues_is_judged_once() -> None:
    tasks = [task(evidence_of(leak), queue=queue) for queue in ("celery", "slow")]
    (verdict,) = diagnosis_of(view(None, tasks=tasks)).suspects
    assert verdict.runs == 800


# --- what a container holds -----------------------------------------------------------------------


def test_a_container_with_a_limit_is_no_leak() -> None:
    held = [Holder("shop.queries", "deque", 4000, 4000.0, limit=9000)]
    verdict = verdict_on(dataclasses.replace(evidence_of(leak), holders=held))
    assert isinstance(verdict, Cleared)
    assert verdict.growth_class == "bounded"
    assert "9000" in verdict.reason


def test_what_is_bounded_by_its_code_is_no_leak_while_it_fills() -> None:
    assert isinstance(verdict_on(filled(leak, 200, lambda _: 1.0, limit=500)), Cleared)
    assert isinstance(verdict_on(filled(leak, 200, lambda _: 1.0)), Suspect)


@pytest.mark.parametrize(
    ("limit", "memory", "bounded"),
    [
        (10**9, None, False),  # two terabytes
        (10**6, None, True),
        (10**6, 2**30, False),
        (1_000, 2**30, True),
    ],
)
def test_a_bound_that_memory_is_too_small_for_is_none(
    limit: int, memory: int | None, bounded: bool
) -> None:
    held = filled(leak, 400, lambda _: 1.0, limit)
    cgroup = CgroupMemory(limit_bytes=memory)
    verdict = verdict_on(held, cgroup=cgroup)
    assert isinstance(verdict, Cleared) is bounded
    if bounded:
        assert verdict.growth_class == "bounded"


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


@pytest.mark.parametrize("audit_every", [1, 2, 3])
@pytest.mark.parametrize("other", [60, 78, 84, 108, 114])
def test_a_bounded_container_that_has_just_got_full_explains_what_was_left_until_then(
    other: int, audit_every: int
) -> None:
    """In one process first: a hundred runs fill it."""
    for runs in range(105, 130, 3):
        numbers = runs, other
        evidence = filled(nothing, max(numbers), lambda _: 0.0, limit=18_000)
        left = told_by(*[process(until_full, each, audit_every=audit_every) for each in numbers])
        fill = fill_of(numbers, lambda number: 90.0 if number < 100 else 0.0)
        verdict = verdict_on(dataclasses.replace(left, holders=evidence.holders, fills=[fill]))
        assert isinstance(verdict, Cleared), (runs, verdict)


def until_full(number: int) -> float:
    return 30_000.0 if number < 100 else 0.0


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


@given(st.lists(st.tuples(st.floats(-100, 1e6), st.floats(0, 1e6)), max_size=17))
def test_whatever_a_fill_tells_there_is_a_verdict(fill: list[tuple[float, float]]) -> None:
    gains, runs = [list(column) for column in zip(*fill, strict=True)] if fill else ([], [])
    evidence = dataclasses.replace(
        evidence_of(leak),
        holders=[Holder("shop.held", "dict", 9, 9.0)],
        fills=[Fill("shop.held", gains, runs)],
    )
    assert verdict_on(evidence)


# --- the order ----------------------------------------------------------------------------------


def test_the_worst_comes_first() -> None:
    small, large = (
        view(evidence_of(leak), name="small"),
        view(evidence_of(lambda _: 9000.0), name="large"),
    )
    assert [each.task for each in diagnosis_of(small, large).suspects] == ["large", "small"]


def test_what_has_no_bytes_is_ordered_by_its_count() -> None:
    workers = [
        view(evidence_of(nothing, fds=count), name=name)
        for name, count in (("few", 1.0), ("many", 3.0))
    ]
    assert [each.task for each in diagnosis_of(*workers).suspects] == ["many", "few"]


# --- what processes say of it ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rises_by", "said", "leaks"),
    [
        pytest.param(0.0, 1.0 * MIB, False, id="16 MiB are said to be there, and are not"),
        pytest.param(1.0 * MIB, 1.0 * MIB, True, id="they are"),
        pytest.param(0.0, 0.05 * MIB, True, id="so little would not be seen"),
        pytest.param(0.0, None, True, id="an older agent does not tell"),
    ],
)
def test_what_runs_leave_behind_is_in_their_processes_memory(
    rises_by: float, said: float | None, leaks: bool
) -> None:
    told = history(live=lambda number: 30.0 * MIB + rises_by * number)
    claims = [] if said is None else [said * number for number in range(len(told))]
    running = samples.process("0", 101, history=told, retained_history=claims)
    verdict = verdict_on(evidence_of(leak), processes=[running])
    assert isinstance(verdict, Suspect) is leaks
    if isinstance(verdict, Cleared):
        assert not verdict.settled
        assert verdict.reason.endswith("is not in its processes' memory")


def test_memory_that_is_not_there_is_charged_to_the_type_that_claims_most() -> None:
    running = samples.process(
        "0",
        101,
        history=history(live=lambda _: 30.0 * MIB),
        retained_history=[1.0 * MIB * number for number in range(16)],
    )
    claims = {"shop.much": 90_000.0, "shop.little": 1_000.0}
    tasks = [task(evidence_of(leak), name, retained_blocks=each) for name, each in claims.items()]
    diagnosis = diagnosis_of(view(None, tasks=tasks, processes=[running]))
    assert [each.task for each in diagnosis.suspects] == ["shop.little"]


def test_where_runs_overlap_least_squares_claim_no_more_than_there_is() -> None:
    """A task type beside a leak was given 2 MB a run, and 490 MB in all; and some kilobytes are
    garbage of Celery's own."""
    running = samples.process("main", 100, history=history(live=lambda n: (30.0 + n / 4) * MIB))
    for per_run, leaks in ((2e6, False), (9e3, True), (3e3, False)):
        shared = Estimate(per_run, per_run / 100, per_run, per_run / 50, 400, 40)
        evidence = dataclasses.replace(told_by(Process(), overlapping=shared), collections=5)
        verdict = verdict_on(evidence, pool="threads", processes=[running])
        assert isinstance(verdict, Suspect) is leaks


def test_what_a_full_bounded_container_moves_is_chance() -> None:
    """Its table is made anew now and then, and larger for a while."""

    def shape(number: int) -> float:
        if number < 60:
            return 3000.0
        return {0: 20_000.0, 20: -19_000.0}.get(number % 40, 0.0)

    full = filled(shape, 200, lambda number: float(number < 60), limit=60)
    verdict = verdict_on(full)
    assert isinstance(verdict, Cleared)
    assert verdict.growth_class == "bounded"
