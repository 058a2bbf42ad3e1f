"""The pipe between pool children and their main process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_memory_exporter.agent.stats.profile import ProfileRow
from celery_memory_exporter.agent.stats.tally import TaskTotals
from celery_memory_exporter.agent.worker.channel import Channel
from celery_memory_exporter.agent.worker.records import (
    PIPE_BUF,
    Bye,
    Hello,
    ProfileRecord,
    TotalsRecord,
)
from celery_memory_exporter.agent.worker.shared_map import Shape, SharedMap


def a_record(pid: int = 1, number: int = 0, size: int = 1000) -> TotalsRecord:
    return TotalsRecord(pid, (f"t{number}", "q"), b"x" * size)


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel(SharedMap.anonymous(Shape(1, 1, 4)))
    yield channel
    channel.close()


@pytest.mark.parametrize("kind", [TotalsRecord, ProfileRecord])
def test_a_row_fits_the_pipe_with_the_longest_names(channel: Channel, kind: Any) -> None:
    row = TaskTotals() if kind is TotalsRecord else ProfileRow()
    flags = () if kind is TotalsRecord else (True,)
    assert channel.send(kind(2**31, ("n" * 120, "q" * 120), row.to_bytes(), *flags))


def test_records_of_several_children_arrive_whole_and_in_order(channel: Channel) -> None:
    for sender in range(3):
        if os.fork() == 0:
            for number in range(100):
                channel.send(a_record(sender, number, 500))
            os._exit(0)
    for _ in range(3):
        os.wait()
    records = list(channel.receive())
    assert len(records) == 300
    for sender in range(3):
        assert [record for record in records if record.pid == sender] == [
            a_record(sender, number, 500) for number in range(100)
        ]


def test_a_full_pipe_refuses_and_never_blocks(channel: Channel) -> None:
    sent = 0
    while channel.send(a_record()):
        sent += 1
    assert not channel.send(a_record())
    assert len(list(channel.receive())) == sent
    assert channel.send(Bye(1, 0, 0))


def test_a_record_that_cannot_be_written_at_once_is_a_mistake(channel: Channel) -> None:
    with pytest.raises(ValueError, match=r"TotalsRecord .* does not fit the pipe"):
        channel.send(a_record(size=PIPE_BUF))


def test_a_file_that_took_the_pipes_number_is_never_written_to(tmp_path: Path) -> None:
    """A task may close every descriptor and open its own file under one of their numbers."""
    channel = Channel(SharedMap.anonymous(Shape(1, 1, 4)))
    writer = channel._writer
    kept = os.dup(writer)
    file = os.open(tmp_path / "users-own", os.O_CREAT | os.O_RDWR)
    os.dup2(file, writer)
    assert not channel.send(a_record())
    assert (tmp_path / "users-own").read_bytes() == b""
    os.dup2(kept, writer)
    assert channel.send(a_record())
    os.close(kept)
    os.close(file)
    channel.close()


def test_a_child_without_its_pipe_goes_on() -> None:
    channel = Channel(SharedMap.anonymous(Shape(1, 1, 4)))
    os.close(channel._writer)
    assert not channel.send(Hello(1, 0, None))
    os.close(channel._reader)
