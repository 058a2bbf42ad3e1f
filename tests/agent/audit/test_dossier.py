"""What is written down of one task type's deep audits."""

from __future__ import annotations

import pytest

from celery_memory_exporter.agent.audit.dossier import ENOUGH, MAX_NAMES, PATIENCE, Dossier
from celery_memory_exporter.agent.audit.suspicion import Suspicion
from celery_memory_exporter.agent.stats.profile import WARM_AGE, ProfileRow
from tests.agent.profiles import profile_row, set_figures

BYTES, KERNEL, BOTH = Suspicion(100.0), Suspicion(kernel=True), Suspicion(100.0, kernel=True)


# --- when it is enough --------------------------------------------------------------------------


def test_a_type_is_explained_when_enough_was_found_and_its_holder() -> None:
    assert not Dossier(found=ENOUGH).explained, "its holder is not known"
    assert Dossier(found=ENOUGH, holders={"shop.CARTS": ("dict", 1.0)}).explained


def test_a_holder_is_not_looked_for_for_ever() -> None:
    assert Dossier(found=ENOUGH, searched=ENOUGH).explained, "there is none to be found"
    assert Dossier(found=ENOUGH, audits=PATIENCE).explained


def test_a_type_of_which_little_was_found_is_not_explained() -> None:
    assert not Dossier(found=ENOUGH - 1, audits=PATIENCE, searched=ENOUGH).explained


# --- which way to look --------------------------------------------------------------------------


@pytest.mark.parametrize("audits", range(6))
def test_bytes_that_tracemalloc_sees_are_left_to_it(audits: int) -> None:
    assert not Dossier(BYTES, audits=audits, traced_bytes=100.0).beyond_tracemalloc


def test_bytes_that_tracemalloc_does_not_see_are_watched_for_in_turns() -> None:
    turns = [Dossier(BYTES, audits=audits).beyond_tracemalloc for audits in range(6)]
    assert turns == [False, False, False, True, False, True]


def test_what_the_kernel_counts_is_watched_for() -> None:
    assert all(Dossier(KERNEL, audits=audits).beyond_tracemalloc for audits in range(4))


def test_where_both_rise_the_two_ways_take_turns() -> None:
    turns = [
        Dossier(BOTH, audits=audits, traced_bytes=100.0).beyond_tracemalloc for audits in range(4)
    ]
    assert turns == [False, True, False, True]


def test_a_type_that_allocates_too_much_to_list_is_watched() -> None:
    assert all(
        Dossier(BYTES, audits=audits, too_large=True).beyond_tracemalloc for audits in (0, 1)
    )


# --- how a container filled up ------------------------------------------------------------------


def runs_at(*runs: float) -> ProfileRow:
    """Runs at the ages past start-up."""
    row = profile_row(0, runs=1)
    for age, count in enumerate(runs, WARM_AGE):
        set_figures(row, age, runs=count)
    return row


def sizes(*items: int | None) -> dict[int, dict[str, int]]:
    """Items at the first run of each age past start-up; ``None`` where the container was not
    followed."""
    return {
        age: {} if count is None else {"shop.HELD": count}
        for age, count in enumerate(items, WARM_AGE)
    }


def test_a_fill_is_told_age_by_age_and_the_newest_age_up_to_now() -> None:
    dossier = Dossier(sizes=sizes(100, 110, 130))
    fill = dossier.fill("shop.HELD", 135, runs_at(15, 20, 6))
    assert fill == [(10.0, 15), (20.0, 20), (5.0, 5)], (
        "the run that entered the newest age was over when sizes were read"
    )


def test_an_age_at_whose_beginning_or_end_nobody_followed_it_tells_nothing() -> None:
    dossier = Dossier(sizes=sizes(100, None, 130, 140))
    fill = dossier.fill("shop.HELD", 150, runs_at(15, 20, 5, 11))
    assert fill == [(0.0, 0.0), (0.0, 0.0), (10.0, 5), (10.0, 10)]


def test_a_container_that_was_never_followed_has_no_fill() -> None:
    assert Dossier(sizes=sizes(1, 2)).fill("shop.GONE", 7, runs_at(15, 20)) == [(0.0, 0.0)] * 2


def test_start_up_is_no_part_of_a_fill() -> None:
    early = {age: {"shop.HELD": 10 * age} for age in range(WARM_AGE)}
    assert Dossier(sizes=early).fill("shop.HELD", 100, runs_at()) == []
    assert Dossier().fill("shop.HELD", 100, runs_at(15)) == []


# --- how much of it -----------------------------------------------------------------------------


def test_amounts_at_one_site_and_in_one_holder_add_up() -> None:
    dossier = Dossier()
    for _ in range(2):
        dossier.add_site("bytes", "shop.py:1", 10.0)
        dossier.add_site("descriptors", "shop.py:1", 1.0)
        dossier.add_holder("shop.CARTS", "dict", 3.0)
        dossier.add_path("shop.Stack.head")
    assert dossier.sites == {("bytes", "shop.py:1"): 20.0, ("descriptors", "shop.py:1"): 2.0}
    assert dossier.holders == {"shop.CARTS": ("dict", 6.0)}
    assert dossier.paths == {"shop.Stack.head": 2}


def test_a_dossier_is_bounded() -> None:
    dossier = Dossier()
    for number in range(10 * MAX_NAMES):
        dossier.add_site("bytes", f"shop.py:{number}", 1.0)
        dossier.add_holder(f"shop.c{number}", "dict", 1.0)
        dossier.add_site("bytes", "shop.py:0", 1.0)
        dossier.add_holder("shop.c0", "dict", 1.0)
    assert len(dossier.sites) == len(dossier.holders) == MAX_NAMES
    assert dossier.sites["bytes", "shop.py:0"] == 10 * MAX_NAMES + 1
    assert dossier.holders["shop.c0"] == ("dict", 10 * MAX_NAMES + 1)
