"""Stretches of a profile, and their sums."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Profile
from celery_memory_exporter.diagnosis.going_on import SEEN
from celery_memory_exporter.diagnosis.profile import COLUMNS, stretch, window
from celery_memory_exporter.diagnosis.rules import SETTLED, SETTLED_BY_CHANCE, SHORT_WARM
from tests import samples


def test_a_window_goes_from_an_age_to_the_oldest_that_was_reached() -> None:
    profile = samples.profile()
    past = window(profile, WARM_RUNS)
    assert past.ages == range(AGES.index(WARM_RUNS), 12)
    assert past.sums.runs == sum(profile.runs[5:])
    assert past.sums.blocks == sum(profile.blocks[5:])


def test_an_age_that_no_process_has_reached_has_no_runs() -> None:
    past = window(samples.profile(), 1_000)
    assert (past.sums.runs, past.sums.mean().runs, past.later(0.5)) == (0, 0, past)


def test_the_later_half_is_that_of_the_runs_and_not_of_the_audits() -> None:
    profile = samples.profile(
        runs=[10.0, 10.0, 10.0, 10.0, *[0.0] * 8], audited=[9.0, 1.0, 0.0, 0.0, *[0.0] * 8]
    )
    whole = window(profile, 0)
    assert whole.later(0.5).ages.start == 2
    assert whole.later(0.51).ages.start == 1
    assert whole.before(whole.later(0.5)).sums.audited == 10


figures = st.lists(st.floats(0, 1e6), min_size=1, max_size=len(AGES))


@given(figures, st.floats(0, 1))
def test_what_is_later_and_what_is_before_is_all_of_it(runs: list[float], share: float) -> None:
    profile = Profile(**{**{column: [0.0] * len(runs) for column in COLUMNS}, "runs": runs})
    whole = window(profile, 0)
    later = whole.later(share)
    assert later.sums.runs >= share * whole.sums.runs
    assert [*whole.before(later).ages, *later.ages] == [*whole.ages]


def test_a_stretch_adds_up_each_column_by_itself() -> None:
    profile = Profile(**{name: [float(at), 100.0, 1.0] for at, name in enumerate(COLUMNS)})
    assert stretch(profile, range(1)).sums == tuple(range(len(COLUMNS)))
    assert stretch(profile, range(1, 9)).sums == (101.0,) * len(COLUMNS), "there are three ages"


def test_ages_are_those_that_the_verdict_counts_by() -> None:
    assert {0, WARM_RUNS, SHORT_WARM, SEEN, SETTLED, SETTLED_BY_CHANCE} <= set(AGES)
