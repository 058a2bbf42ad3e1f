"""What processes tell of a task type: through the pipe, and together."""

from __future__ import annotations

import itertools
import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.audit.dossier import MAX_NAMES, Dossier
from celery_memory_exporter.agent.audit.suspicion import FIRST_AGE
from celery_memory_exporter.agent.heap.containers import GrowingContainer
from celery_memory_exporter.agent.stats.growth import MAX_TYPES, TaskProfile
from celery_memory_exporter.agent.stats.profile import WIDTH, Column, Failed, ProfileRow
from celery_memory_exporter.agent.worker import evidence
from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.evidence import (
    FADE,
    NAME_BYTES,
    NAMES,
    Words,
    apply,
    faded,
    records,
    together,
)
from celery_memory_exporter.common.names import short_name
from celery_memory_exporter.common.report import MEAN_BLOCK_BYTES
from tests.agent.profiles import profile_row, set_figures

PID = 2**22
WIDEST = ("x", "é", "語", "\U0001f40d", "\ud800", "<>")


def full_dossier(letter: str) -> Dossier:
    dossier = Dossier(audits=10**6)
    for number in range(MAX_NAMES):
        dossier.add_site("descriptors", letter * 900 + f"{number}", 1e300 / (number + 1))
        dossier.add_holder(f"{number}" + letter * 900, "SimpleQueue", 1e300 / (number + 1))
        dossier.paths[f"{number}" + letter * 900] = 1
    return dossier


def told(
    grown: TaskProfile, dossier: Dossier | None, rows: dict[str, GrowingContainer] | None = None
) -> Words:
    words = Words()
    for kind, _, _, _, *rest in records(PID, ("t", "q"), grown, dossier, rows or {}):
        apply(words, kind, rest)
    return words


@pytest.mark.parametrize("letter", WIDEST)
def test_every_record_fits_the_pipe_with_the_longest_names(letter: str) -> None:
    grown = TaskProfile()
    grown.row = ProfileRow.from_bytes(array("d", [math.pi] * ProfileRow.SIZE).tobytes())
    grown.add_survivors({f"{number}" + letter * 500: 2**60 for number in range(MAX_TYPES)})
    dossier = full_dossier(letter)
    rows = {
        path: GrowingContainer(path, "SimpleQueue", 2**60, 2**60, 2**60) for path in dossier.holders
    }
    key = short_name(letter * 500), short_name(letter * 500)
    channel = Channel()
    sent = [record[0] for record in records(PID, key, grown, dossier, rows) if channel.send(record)]
    assert sent == list(evidence.KINDS)
    assert [record[0] for record in channel.receive()] == sent
    channel.close()


def test_a_process_that_was_not_looked_at_deeply_tells_no_more_than_its_runs() -> None:
    for dossier in (None, Dossier()):
        assert [record[0] for record in records(PID, ("t", "q"), TaskProfile(), dossier, {})] == [
            "growth",
            "survivors",
        ]


def test_what_is_told_is_what_was_found() -> None:
    grown = TaskProfile()
    grown.add_audit(grown.begin(), 5, 50)
    grown.add_survivors({"shop.Cart": 7})
    dossier = Dossier(audits=3)
    dossier.add_site("bytes", "shop.py:1", 64.0)
    dossier.add_holder("shop.CARTS", "list", 2.0)
    dossier.add_holder("shop.GONE", "dict", 1.0)
    dossier.paths["shop.CARTS[...]"] = 2
    words = told(
        grown, dossier, {"shop.CARTS": GrowingContainer("shop.CARTS", "list", 100, 90, 1_000)}
    )
    assert words.row.figures == grown.row.figures
    assert words.survivors == {"shop.Cart": 7}
    assert (words.deep_audits, words.sites, words.paths) == (
        3,
        {("bytes", "shop.py:1"): 64.0},
        {"shop.CARTS[...]": 1},
    )
    assert words.holders == {
        "shop.CARTS": ("list", 100, 2.0, 1_000),
        "shop.GONE": ("dict", 0, 1.0, None),
    }


@given(st.dictionaries(st.text(max_size=200), st.integers(1, 2**40), max_size=MAX_TYPES))
def test_the_most_frequent_survivors_are_told(survivors: dict[str, int]) -> None:
    grown = TaskProfile()
    grown.add_survivors(survivors)
    got = told(grown, None).survivors
    assert len(got) <= NAMES
    assert all(len(name.encode("utf-8", "surrogatepass")) <= NAME_BYTES for name in got)
    assert (
        sorted(got.values(), reverse=True) == sorted(survivors.values(), reverse=True)[: len(got)]
        or len(got) < NAMES
    )


def test_names_that_are_equal_when_cut_add_up() -> None:
    grown = TaskProfile()
    grown.add_survivors({"m" * NAME_BYTES + "a": 70, "m" * NAME_BYTES + "b": 30})
    assert told(grown, None).survivors == {"m" * NAME_BYTES: 100}


def test_a_repeated_word_replaces_the_earlier_one() -> None:
    grown = TaskProfile()
    words = Words()
    for _ in range(3):
        grown.add_survivors({"shop.Cart": 1})
        for kind, _, _, _, *rest in records(PID, ("t", "q"), grown, None, {}):
            apply(words, kind, rest)
    assert words.survivors == {"shop.Cart": 3}


def test_how_containers_filled_up_adds_up_age_by_age_and_goes_with_its_container() -> None:
    one = Words(
        holders={"shop.HELD": ("list", 9, 3.0, None)},
        fills={"shop.HELD": [(5.0, 10.0)], "shop.GONE": [(1.0, 1.0)]},
    )
    other = Words(
        holders={"shop.HELD": ("list", 9, 3.0, None)},
        fills={"shop.HELD": [(1.0, 10.0), (2.0, 4.0)]},
    )
    assert together([one, other]).fills["shop.HELD"] == [(6.0, 20.0), (2.0, 4.0)]
    assert faded(together([one])).fills == {"shop.HELD": [(5.0 * FADE, 10.0 * FADE)]}


def test_a_container_that_has_outgrown_its_limit_in_one_process_has_none() -> None:
    held = Dossier(audits=1)
    held.add_holder("shop.HELD", "list", 1.0)
    young = told(
        TaskProfile(), held, {"shop.HELD": GrowingContainer("shop.HELD", "list", 300, 300, 500)}
    )
    old = told(
        TaskProfile(), held, {"shop.HELD": GrowingContainer("shop.HELD", "list", 900, 900, None)}
    )
    unknown = told(TaskProfile(), held, {})
    for parts in ([young, old], [old, young], [young, faded(together([old]))], [old, unknown]):
        (holder,) = evidence.to_evidence(together(parts), 1.0, None, None).holders
        assert holder.limit is None
    (holder,) = evidence.to_evidence(together([young, unknown]), 1.0, None, None).holders
    assert holder.limit == 500


# --- several processes --------------------------------------------------------------------------

FIGURES = st.integers(0, 10**6)
ROW_OF = st.lists(st.integers(0, 1_000), min_size=WIDTH, max_size=WIDTH)
NAME = st.sampled_from("abc")


@st.composite
def witnesses(draw: st.DrawFn) -> Words:
    """One process's words, of so many runs that it is a witness."""
    row = ProfileRow()
    start = FIRST_AGE * WIDTH
    row.figures[start : start + WIDTH] = array("d", draw(ROW_OF))
    row.figures[start + Column.AUDITED] += evidence.WITNESS_RUNS
    return Words(
        row=row,
        survivors=draw(st.dictionaries(NAME, FIGURES)),
        deep_audits=draw(FIGURES),
        sites=draw(st.dictionaries(st.tuples(st.just("bytes"), NAME), FIGURES)),
        holders={
            path: ("dict", items, items / 2, None)
            for path, items in draw(st.dictionaries(NAME, FIGURES)).items()
        },
        paths=draw(st.dictionaries(NAME, st.just(1.0))),
    )


def flat(words: Words) -> dict[object, float]:
    holders = {("items", path): each[1] for path, each in words.holders.items()}
    holders |= {("growth", path): each[2] for path, each in words.holders.items()}
    figures = {"deep": words.deep_audits, "witnesses": words.witnesses, "growing": words.growing}
    row = {("row", at): value for at, value in enumerate(words.row.figures)}
    return {
        **words.survivors,
        **words.sites,
        **{("path", path): value for path, value in words.paths.items()},
        **holders,
        **figures,
        **row,
    }


@given(st.lists(witnesses(), min_size=1, max_size=4), st.randoms())
def test_the_order_of_processes_does_not_matter(parts: list[Words], random: object) -> None:
    shuffled = parts[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert flat(together(parts)) == pytest.approx(flat(together(shuffled)))


@given(st.lists(witnesses(), min_size=2, max_size=5), st.data())
def test_nor_does_who_was_summed_first(parts: list[Words], data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(parts) - 1))
    assert flat(together(parts)) == pytest.approx(
        flat(together([together(parts[:at]), *parts[at:]]))
    )


@given(st.lists(witnesses(), min_size=1, max_size=4))
def test_to_sum_changes_no_part(parts: list[Words]) -> None:
    before = [flat(part) for part in parts]
    together(parts)
    assert [flat(part) for part in parts] == before


def after(runs: int, blocks: float = 0.0) -> Words:
    """Words of a process with so many audited runs past start-up."""
    return Words(row=profile_row(FIRST_AGE, audited=runs, blocks=runs * blocks))


def test_a_process_is_one_witness_and_speaks_for_a_leak_when_its_runs_left_something() -> None:
    total = together([after(100, blocks=20.0), after(100), after(100, blocks=0.1)])
    assert (total.witnesses, total.growing) == (3, 1)


def test_a_young_process_is_no_witness() -> None:
    assert together([after(evidence.WITNESS_RUNS - 1, blocks=20.0)]).witnesses == 0


def test_young_processes_are_no_witness_together() -> None:
    young = [after(evidence.WITNESS_RUNS - 1, blocks=20.0) for _ in range(5)]
    assert together([together(young), young[0]]).witnesses == 0


def test_descriptors_speak_for_a_leak() -> None:
    words = after(10)
    set_figures(words.row, FIRST_AGE, fds=10)
    assert together([words]).growing == 1


def test_a_limit_that_one_process_knows_is_not_forgotten() -> None:
    knows, forgot = (
        Words(holders={"c": ("deque", 5, 1.0, 100)}),
        Words(holders={"c": ("deque", 0, 1.0, None)}),
    )
    for parts in itertools.permutations((knows, forgot)):
        assert together(parts).holders["c"][3] == 100


@given(witnesses())
def test_what_is_gone_fades_and_keeps_its_ratios(words: Words) -> None:
    summed = together([words])
    gone = faded(summed)
    expected = {
        name: 0.0 if type(name) is tuple and name[0] == "items" else FADE * value
        for name, value in flat(summed).items()
    }
    assert flat(gone) == pytest.approx(expected)


def test_what_fades_is_bounded() -> None:
    words = Words(
        survivors={f"{number}": float(number) for number in range(100)},
        sites={("bytes", f"{number}"): float(number) for number in range(100)},
        holders={f"{number}": ("dict", number, float(number), None) for number in range(100)},
        paths={f"{number}": 1.0 for number in range(100)},
    )
    gone = faded(words)
    assert [len(part) for part in (gone.survivors, gone.sites, gone.holders, gone.paths)] == [
        NAMES
    ] * 4
    assert "99" in gone.survivors


def test_generations_without_end_weigh_no_more_than_twenty() -> None:
    gone: list[Words] = []
    for _ in range(500):
        gone = [faded(together([*gone, after(100, blocks=20.0)]))]
    (total,) = gone
    assert total.witnesses == pytest.approx(FADE / (1 - FADE), rel=0.01)
    assert total.growing == total.witnesses
    row = total.row
    assert row[FIRST_AGE, Column.BLOCKS] / row[FIRST_AGE, Column.AUDITED] == pytest.approx(20.0)


def test_evidence_for_the_report() -> None:
    words = together([after(100, blocks=20.0)])
    figures = set_figures(words.row, FIRST_AGE, runs=100).figures
    figures[Failed.AUDITS], figures[Failed.BLOCKS], figures[Failed.NATIVE] = 2, 3, 4
    words.survivors = {"shop.Cart": 2.6}
    words.sites = {("bytes", "shop.py:1"): 64.04, ("threads", "shop.py:2"): 99.0}
    words.holders = {"shop.CARTS": ("list", 10, 2.0, None), "shop.b": ("dict", 1, 5.0, 7)}
    told = evidence.to_evidence(words, 1.23, None, None)
    assert told.profile.blocks[FIRST_AGE] == 2_000
    assert (told.processes, told.growing, told.seconds) == (1, 1, 1.2)
    assert (told.failed_audits, told.failed_bytes) == (2, 3 * MEAN_BLOCK_BYTES + 4)
    assert told.survivors == {"shop.Cart": 3}
    assert [(site.site, site.figure, site.amount) for site in told.sites] == [
        ("shop.py:2", "threads", 99.0),
        ("shop.py:1", "bytes", 64.0),
    ]
    assert [(holder.path, holder.items, holder.limit) for holder in told.holders] == [
        ("shop.b", 1, 7),
        ("shop.CARTS", 10, None),
    ]
