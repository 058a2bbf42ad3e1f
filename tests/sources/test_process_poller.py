"""The process table as a source: what it tells when it is denied something."""

from __future__ import annotations

import os

import pytest

from celery_memory_exporter.fleet.facts import WorkerProcesses
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.sources import process_table
from celery_memory_exporter.sources.process_poller import ProcessPoller
from tests import samples


def denied(table: list[WorkerProcesses], *, hidden: bool, polls: int = 1) -> dict[str, bool]:
    fleet = Fleet(Rules(samples.BOOT, Limits()))
    poller = ProcessPoller(
        fleet,
        interval=5,
        shared_interval=60,
        shared_max_rss=1 << 40,
        read=lambda: table,
        others_hidden=lambda: hidden,
        monotonic=lambda: 1.0,
    )
    for _ in range(polls):
        poller.poll()
    return fleet.snapshot(1.0).sources["processes"].denied


def this_process() -> WorkerProcesses:
    memory = process_table.read(os.getpid())
    assert memory is not None
    return WorkerProcesses("celery@here", memory, (), samples.table().cgroup)


def test_nothing_is_denied_where_all_may_be_read() -> None:
    assert denied([this_process()], hidden=False) == {"processes": False, "shared_memory": False}


def test_hidden_processes_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    assert denied([], hidden=True, polls=3) == {"processes": True, "shared_memory": False}
    assert [record.getMessage().count("hidepid") for record in caplog.records] == [1]


def test_what_else_is_hidden_does_not_matter_where_workers_are_seen() -> None:
    assert not denied([this_process()], hidden=True)["processes"]


def test_a_process_that_is_gone_denies_nothing() -> None:
    gone = WorkerProcesses("celery@gone", samples.seen(2**22 + 1), (), samples.table().cgroup)
    assert not denied([gone], hidden=False)["shared_memory"]


class Reader:
    """A process table that fails when the test says so."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.reads = 0

    def __call__(self) -> list[WorkerProcesses]:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return [samples.table()]


def polled(read: Reader) -> tuple[Fleet, ProcessPoller]:
    fleet = Fleet(Rules(samples.BOOT, Limits()))
    poller = ProcessPoller(
        fleet, interval=300, shared_interval=60, shared_max_rss=0, read=read, others_hidden=bool
    )
    return fleet, poller


def test_a_table_that_cannot_be_read_is_told_once_and_read_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read = Reader()
    fleet, poller = polled(read)
    read.error = OSError("no /proc")
    for _ in range(3):
        poller.poll()
    assert not fleet.snapshot(0.0).sources["processes"].up
    assert [record.getMessage() for record in caplog.records] == [
        "the process table cannot be read; it is tried again every 300 s"
    ]
    assert "no /proc" in caplog.text
    read.error = None
    poller.poll()
    assert fleet.snapshot(0.0).sources["processes"].up


def test_the_first_reading_is_there_when_it_has_started() -> None:
    read = Reader()
    fleet, poller = polled(read)
    poller.start()
    assert fleet.snapshot(0.0).sources["processes"].up
    poller.stop()
    assert read.reads == 1
