"""Objects counted by type."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.heap import census
from celery_memory_exporter.agent.heap.census import Census, changed, type_name


class Entry:
    """Something to count."""


def test_growth_is_the_true_number() -> None:
    counting = Census(15.0, pause_seconds=60.0)
    counting.take(warm=False)
    kept = [Entry() for _ in range(123)]
    counting.take(warm=True)
    name = f"{__name__}.Entry"
    assert counting.types()[name] == (123, 123, 0), (
        "what came before the end of the warm-up is growth, but ranks nobody"
    )
    kept += [Entry() for _ in range(7)]
    counting.take(warm=True)
    assert counting.types()[name] == (130, 130, 7)


def test_the_agents_own_types_are_in_no_figure_and_the_demos_are() -> None:
    kept = []
    for module in ("agent.meter.run", "common.intervals", "demo.shop"):
        kind = type("Made", (), {"__module__": f"celery_memory_exporter.{module}"})
        kept.append(kind())
    counting = Census(15.0, pause_seconds=60.0)
    counting.take(warm=True)
    made = {name for name in counting.counts if name.endswith(".Made")}
    assert made == {"celery_memory_exporter.demo.shop.Made"}


def test_a_census_keeps_nothing_alive() -> None:

    class Doomed:
        pass

    counting = Census(15.0, pause_seconds=60.0)
    held = Doomed()
    ghost = weakref.ref(Doomed)
    counting.take(warm=True)
    del held, Doomed
    gc.collect()
    assert ghost() is None


def test_within_a_pause_budget_every_kth_object_is_counted_and_scaled() -> None:
    kept = [Entry() for _ in range(20_000)]
    counting = Census(15.0, pause_seconds=0.0)
    counting.take(warm=True)
    assert counting.counts[f"{__name__}.Entry"] == len(kept), (
        "the first census, before any task runs, is exact"
    )
    counting._cost = 1e-6
    counting.take(warm=True)
    assert min(counting.counts.values()) > 1
    assert 0.8 < counting.counts[f"{__name__}.Entry"] / len(kept) < 1.2


def test_when_a_census_is_due() -> None:
    counting = Census(least_seconds=1000.0, pause_seconds=1.0)
    assert counting.due(0.0, idle=False)
    counting.take(warm=True)
    assert not counting.due(counting._busy_due - 1, idle=False)
    assert counting.due(counting._busy_due, idle=False)
    assert counting._idle_due < counting._busy_due


def test_types_are_named_past_their_own_ideas_of_a_name() -> None:
    class Meta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise TypeError("no name for you")

    class Odd(metaclass=Meta):
        __module__ = 5  # type: ignore[assignment]

    assert type_name(Odd).endswith("Odd")
    assert type_name(dict) == "dict"
    assert type_name(Entry) == f"{__name__}.Entry"


def test_lazy_proxies_are_not_executed() -> None:
    class Proxy:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("executed")

        @property  # type: ignore[misc]
        def __class__(self) -> type:
            raise AssertionError("executed")

    proxies = [Proxy() for _ in range(3)]
    counting = Census(15.0, pause_seconds=60.0)
    counting.take(warm=True)
    assert counting.counts[type_name(type(proxies[0]))] == 3


def test_classes_that_cannot_be_hashed_are_counted() -> None:
    class Meta(type):
        def __eq__(cls, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    class Odd(metaclass=Meta):
        pass

    kept = [Odd() for _ in range(3)]
    counting = Census(15.0, pause_seconds=60.0)
    counting.take(warm=True)
    assert counting.counts[type_name(type(kept[0]))] == 3


@pytest.mark.parametrize(
    "share", [Census.forked, lambda counting: counting.share_pages() or counting]
)
def test_on_shared_pages_a_census_waits_for_a_full_collection(share: Any) -> None:
    few = Census(15.0, pause_seconds=60.0)
    many = Census(15.0, pause_seconds=60.0, most_copied=10)
    gc.disable()
    try:
        for counting, due in ((few, True), (many, False)):
            counting.take(warm=False)
            shared = share(counting) or counting
            assert shared.due(1e12, idle=True) == due
            gc.collect()
            assert shared.due(1e12, idle=True)
    finally:
        gc.enable()


def test_a_census_that_is_off_counts_nothing() -> None:
    counting = Census(15.0, pause_seconds=60.0, most_copied=0)
    counting.take(warm=True)
    assert not counting.due(1e9, idle=True)
    assert (counting.objects, counting.types()) == (None, {})


def test_endless_new_types_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "MAX_TYPES", 10)
    counting = Census(15.0, pause_seconds=60.0)
    counting.take(warm=True)
    assert len(counting.counts) == 11
    assert counting.counts["other"] > 0


ROWS = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.integers(1, 9), st.integers(), st.integers())
)


@given(st.lists(ROWS, max_size=5))
def test_a_receiver_of_changes_knows_all_rows(
    censuses: list[dict[str, tuple[int, int, int]]],
) -> None:
    sent: dict[str, tuple[int, int, int]] = {}
    for rows in censuses:
        sent = census.known(sent, changed(rows, sent))
        assert sent == rows, "and holds nothing of types that are gone"
