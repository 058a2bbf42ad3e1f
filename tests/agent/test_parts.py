"""The agent's parts in the worker, by values."""

from __future__ import annotations

import marshal
import os
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery.app.trace import trace_ok_t
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.agent.heap.census import Census
from celery_memory_exporter.agent.heap.containers import ContainerRow
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.settings import Settings
from celery_memory_exporter.agent.stats import growth, tally
from celery_memory_exporter.agent.worker.channel import PIPE_BUF, STATES_PER_SLOT, Channel
from celery_memory_exporter.agent.worker.evidence import FADE
from celery_memory_exporter.agent.worker.ledger import Ledger, TopTypes
from celery_memory_exporter.agent.worker.pool_child import ChildAgent, parts_of


def test_a_row_fits_the_pipe_with_the_longest_names() -> None:
    channel = Channel()
    assert channel.send(("row", 2**31, "n" * 120, "q" * 120, tally.new_row().tobytes()))
    channel.close()


# --- channel ------------------------------------------------------------------------------------


def test_records_of_several_children_arrive_whole_and_in_order() -> None:
    channel = Channel()
    for sender in range(3):
        if os.fork() == 0:
            for number in range(100):
                channel.send(("row", sender, number, "x" * 500))
            os._exit(0)
    for _ in range(3):
        os.wait()
    records = list(channel.receive())
    assert len(records) == 300
    for sender in range(3):
        assert [number for _, who, number, _ in records if who == sender] == list(range(100))
    channel.close()


def test_a_full_pipe_refuses_and_never_blocks() -> None:
    channel = Channel()
    sent = 0
    while channel.send(("row", 1, "x" * 1000)):
        sent += 1
    assert not channel.send(("row", 1, "x" * 1000))
    assert len(list(channel.receive())) == sent
    assert channel.send(("row", 1, "again"))
    channel.close()


def test_a_record_that_cannot_be_written_at_once_is_a_mistake() -> None:
    channel = Channel()
    with pytest.raises(ValueError, match="does not fit the pipe"):
        channel.send(("row", 1, "x" * PIPE_BUF))
    channel.close()


def test_a_file_that_took_the_pipes_number_is_never_written_to(tmp_path: Path) -> None:
    """A task may close every descriptor and open its own file under one of their numbers."""
    channel = Channel()
    writer = channel._writer
    kept = os.dup(writer)
    file = os.open(tmp_path / "users-own", os.O_CREAT | os.O_RDWR)
    os.dup2(file, writer)
    assert not channel.send(("row", 1, "secret"))
    assert (tmp_path / "users-own").read_bytes() == b""
    os.dup2(kept, writer)
    assert channel.send(("row", 1, "fine"))
    os.close(kept)
    os.close(file)
    channel.close()


def test_a_child_without_its_pipe_goes_on() -> None:
    channel = Channel()
    os.close(channel._writer)
    assert not channel.send(("row", 1))
    os.close(channel._reader)


def test_what_a_child_was_doing_survives_it() -> None:
    channel = Channel()
    if os.fork() == 0:
        place = channel.claim(3)
        assert place is not None
        channel.write(place, (os.getpid(), 123.5, 50, 60), "shop.fatal")
        os.kill(os.getpid(), 9)
    pid, _ = os.wait()
    assert channel.take(3, pid + 1) is None
    state = channel.take(3, pid)
    assert state is not None
    assert (state.since, state.rss_bytes, state.peak_bytes, state.task) == (
        123.5,
        50,
        60,
        "shop.fatal",
    )
    assert channel.take(3, pid) is None
    channel.close()


def test_a_successor_does_not_write_over_what_nobody_has_read() -> None:
    channel = Channel()
    places = []
    for pid in range(1, STATES_PER_SLOT + 1):
        place = channel.claim(0)
        assert place is not None
        places.append(place)
        channel.write(place, (pid, float(pid), 0, 0), f"t{pid}")
    assert len(set(places)) == STATES_PER_SLOT
    assert channel.claim(0) == places[0], "the oldest goes first when there is no room"
    assert [channel.take(0, pid).task for pid in (1, 2, 3, 4)] == ["t1", "t2", "t3", "t4"]  # type: ignore[union-attr]
    channel.close()


@pytest.mark.parametrize("slot", [-1, 10**6])
def test_a_slot_beyond_the_last_is_none(slot: int) -> None:
    channel = Channel()
    assert channel.claim(slot) is None
    assert channel.take(slot, 1) is None
    channel.close()


# --- ledger -------------------------------------------------------------------------------------


def row_of(**columns: float) -> bytes:
    row = tally.new_row()
    for name, value in columns.items():
        row[getattr(tally, name) if name.isupper() else 0] = value
    return row.tobytes()


def grown(*, runs: int, audits: int, blocks: float) -> bytes:
    """A growth row of a process past its first run, each audit with so many blocks."""
    row = growth.new_row()
    start = growth.WIDTH
    row[start + growth.RUNS], row[start + growth.AUDITED], row[start + growth.BLOCKS] = (
        runs,
        audits,
        audits * blocks,
    )
    return row.tobytes()


def test_totals_survive_the_child_and_its_live_memory_does_not() -> None:
    ledger = Ledger(200)
    ledger.apply(("hello", 7, 0, 70))
    ledger.apply(("row", 7, "t", "q", row_of(succeeded=5)))
    ledger.apply(("growth", 7, "t", "q", grown(runs=5, audits=5, blocks=20)))
    ledger.apply(("process", 7, {"python_blocks": 1}, (0.5, 1, 2)))
    ledger.close_account(7, "tasks", None)
    ledger.apply(("hello", 8, 0, 80))
    ledger.apply(("row", 8, "t", "q", row_of(succeeded=3)))
    ledger.apply(("growth", 8, "t", "q", grown(runs=4, audits=2, blocks=10)))
    assert ledger.rows()["t", "q"][0] == 8
    assert ledger.retained() == {("t", "q"): (40, 0, 4)}, "the living child's mean for all its runs"
    assert (ledger.started, dict(ledger.exited), ledger.lost) == (2, {"tasks": 1}, {})
    assert (ledger.costs.seconds, ledger.costs.errors, ledger.costs.tasks_folded) == (0.5, 1, 2)


def test_what_a_gone_child_told_stays_as_evidence_and_fades() -> None:
    ledger = Ledger(200)
    told = grown(runs=5, audits=5, blocks=20)
    for pid in (7, 8):
        ledger.open_account(pid, 0, None)
        ledger.apply(("growth", pid, "t", "q", told))
        ledger.apply(("survivors", pid, "t", "q", {"shop.Cart": 100}))
        ledger.apply(
            ("sites", pid, "t", "q", (4, 3, 1), {("bytes", "shop.py:1"): 64.0}, ["shop.CARTS[...]"])
        )
        ledger.apply(("holders", pid, "t", "q", {"shop.CARTS": ("list", 50, 20.0, None)}))
    ledger.close_account(7, "tasks", None)
    words = ledger.words()["t", "q"]
    assert words.survivors == {"shop.Cart": 100 + 100 * FADE}
    assert words.sites == {("bytes", "shop.py:1"): 64.0 + 64.0 * FADE}
    assert words.holders == {"shop.CARTS": ("list", 50, 20.0 + 20.0 * FADE, None)}, (
        "a gone child's containers are empty"
    )
    assert words.paths == {"shop.CARTS[...]": 1 + FADE}
    assert (words.deep_audits, words.traced_audits, words.watched_audits) == (
        4 + 4 * FADE,
        3 + 3 * FADE,
        1 + FADE,
    )
    assert list(words.row) == [value + value * FADE for value in array("d", told)]


def test_the_containers_of_living_processes_are_summed_and_the_fastest_growing_come_first() -> None:
    ledger = Ledger(200)
    for pid in (1, 2, 3):
        ledger.open_account(pid, pid, None)
        ledger.apply(
            ("containers", pid, [("shop.a", "dict", 5, 1, None), ("shop.b", "list", 10, 3, 100)])
        )
    ledger.close_account(3, "tasks", None)
    assert ledger.containers() == [
        ContainerRow("shop.b", "list", 20, 6, 100),
        ContainerRow("shop.a", "dict", 10, 2, None),
    ]


def test_a_repeated_row_replaces_the_earlier_one() -> None:
    ledger = Ledger(200)
    ledger.open_account(7, 0, 70)
    for runs in (1, 2, 2, 3):
        ledger.apply(("row", 7, "t", "q", row_of(succeeded=runs)))
    assert ledger.rows()["t", "q"][0] == 3


def test_a_child_whose_hello_was_lost_is_opened_once_by_the_pool() -> None:
    ledger = Ledger(200)
    ledger.apply(("row", 7, "t", "q", row_of(succeeded=1)))
    assert ledger.rows() == {}
    ledger.open_account(7, 0, 70)
    ledger.apply(("hello", 7, 0, 70))
    ledger.apply(("row", 7, "t", "q", row_of(succeeded=2)))
    assert (ledger.started, ledger.rows()["t", "q"][0]) == (1, 2)


def test_the_task_that_a_killed_child_was_in_is_lost() -> None:
    ledger = Ledger(max_tasks=1)
    for pid, task in enumerate(("a", "a", "b")):
        ledger.open_account(pid, 0, None)
        ledger.close_account(pid, "oom", task)
    assert ledger.lost == {("a", "oom"): 2, ("other", "oom"): 1}


def test_the_cap_on_task_types_holds_for_the_worker() -> None:
    ledger = Ledger(max_tasks=2)
    for pid in range(4):
        ledger.open_account(pid, pid, None)
        ledger.apply(("row", pid, f"t{pid}", "", row_of(succeeded=1)))
    assert sum(row[0] for row in ledger.rows().values()) == 4
    assert len(ledger.rows()) == 3
    for pid in range(4):
        ledger.close_account(pid, "tasks", None)
    assert sum(row[0] for row in ledger.rows().values()) == 4
    assert len(ledger.rows()) == 3


def test_a_type_once_told_apart_stays_so_when_children_end() -> None:
    ledger = Ledger(max_tasks=3)
    for pid, names in ((1, "abc"), (2, "de")):
        ledger.open_account(pid, pid, None)
        for name in names:
            ledger.apply(("row", pid, name, "", row_of(succeeded=5)))
    before = {key: row[0] for key, row in ledger.rows().items()}
    ledger.close_account(2, "tasks", None)
    assert {key: row[0] for key, row in ledger.rows().items()} == before


def test_types_are_summed_over_processes() -> None:
    ledger = Ledger(200)
    for pid in (1, 2):
        ledger.open_account(pid, pid, None)
        ledger.apply(("types", pid, {"A": (10, 5, 1), "B": (1, 0, 0)}))
    ledger.apply(("types", 2, {"A": (20, 15, 2)}))
    assert ledger.types() == {"A": (30, 20, 3), "B": (2, 0, 0)}


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


# --- child --------------------------------------------------------------------------------------


class Pipe:
    """A channel that does something while a record is sent, or refuses it."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.during: Callable[[], object] = lambda: None
        self.full = False

    def send(self, record: tuple[Any, ...]) -> bool:
        self.during()
        if not self.full:
            self.sent.append(record)
        return not self.full

    def claim(self, slot: int) -> int:
        return slot

    def write(self, *_: object) -> None:
        pass


def make_child(pipe: Pipe) -> ChildAgent:
    return ChildAgent(pipe, Settings(), 0, None, Census(15.0, 60.0))  # type: ignore[arg-type]


def run_once(child: ChildAgent) -> None:
    measured(child.meter, "t", lambda *_: trace_ok_t(None, None, 0.1, "None"))("uuid", (), {}, {})
    child.stop_helper()


def runs_told(pipe: Pipe) -> list[float]:
    return [array("d", record[-1])[0] for record in pipe.sent if record[0] == "row"]


def test_a_run_that_ends_while_its_row_is_sent_is_told_later() -> None:
    pipe = Pipe()
    child = make_child(pipe)
    run_once(child)
    child._owed.add(("t", ""))

    def meanwhile() -> None:
        pipe.during = lambda: None
        run_once(child)  # finds the helper telling, and leaves its row to it

    pipe.during = meanwhile
    child.rest()
    child.rest()
    assert runs_told(pipe)[-1] == 2


def test_what_found_the_pipe_full_is_told_later() -> None:
    pipe = Pipe()
    child = make_child(pipe)
    pipe.full = True
    run_once(child)
    run_once(child)
    assert runs_told(pipe) == []
    pipe.full = False
    child.rest()
    assert runs_told(pipe) == [2]


def test_the_last_words_are_all_that_is_owed_and_the_end() -> None:
    pipe = Pipe()
    child = make_child(pipe)
    run_once(child)
    pipe.full = True
    run_once(child)
    pipe.full = False
    child.end(155)
    assert runs_told(pipe)[-1] == 2
    assert pipe.sent[-1][0] == "bye"
    assert pipe.sent[-1][2] == 155


@given(
    st.dictionaries(
        st.text(max_size=200), st.tuples(st.integers(), st.integers(), st.integers()), max_size=60
    )
)
def test_types_go_in_portions_that_fit_a_record(types: dict[str, tuple[int, int, int]]) -> None:
    bounded = {
        name: tuple(max(-(2**62), min(2**62, value)) for value in row)
        for name, row in types.items()
    }
    parts = list(parts_of(bounded))  # type: ignore[arg-type]
    assert {name: row for part in parts for name, row in part.items()} == bounded
    assert all(len(marshal.dumps(("types", 2**31, part))) < PIPE_BUF for part in parts)
