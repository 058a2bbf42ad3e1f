"""Which command lines are Celery workers, and what they call themselves."""

from __future__ import annotations

import os

import pytest

from celery_memory_exporter.fleet.facts import Identity
from celery_memory_exporter.sources import process_table


@pytest.mark.parametrize(
    "line",
    [
        "/usr/bin/python3 /venv/bin/celery -A proj worker -l INFO",
        "/venv/bin/python -m celery -A proj worker",
        "python3.12 -X dev -W ignore -m celery worker",
        "python -u -OO /venv/bin/celery --app=proj worker -n w1@%h",
        "celery -A proj worker",
        "[celeryd: celery@web1:MainProcess] -active- (worker -A proj)",
        "[celeryd: celery@web1:ForkPoolWorker-1]",
    ],
)
def test_a_worker(line: str) -> None:
    arguments = [line] if line.startswith("[") else line.split()
    assert process_table.is_worker(arguments)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "/usr/bin/python3 /venv/bin/celery -A proj beat",
        "/usr/bin/python3 /venv/bin/celery -A proj flower",
        "vim celery worker",
        "sh -c celery -A proj worker",
        "sudo celery -A proj worker",
        "python -c import celery; celery worker",
        "python -m pytest tests/celery worker",
        "python manage.py worker",
    ],
)
def test_no_worker(line: str) -> None:
    assert not process_table.is_worker(line.split())


@pytest.mark.parametrize(
    ("options", "nodename"),
    [
        ("", "celery@web1.example.com"),
        ("-n w1@%h", "w1@web1.example.com"),
        ("-n w1", "celery@w1"),
        ("-nw2@%h", "w2@web1.example.com"),
        ("--hostname=w1@%n", "w1@web1"),
        ("--hostname w1@%d", "w1@example.com"),
        ("-n w1@%% -Q name", "w1@%"),
        ("-n", "celery@web1.example.com"),
        ("--no-color -c 4", "celery@web1.example.com"),
    ],
)
def test_the_nodename_is_celerys_own(options: str, nodename: str) -> None:
    arguments = ["python", "celery", "-A", "proj", "worker", *options.split()]
    assert process_table.nodename_of(arguments, "web1.example.com") == nodename


def test_the_process_title_tells_the_nodename() -> None:
    assert (
        process_table.nodename_of(["[celeryd: w9@h:MainProcess] -active- (worker)"], "web1")
        == "w9@h"
    )


@pytest.mark.parametrize(
    ("told", "same"),
    [
        ((12, 99, 5), True),
        ((12, 99, None), True),
        ((12, 98, 5), False),
        ((13, 99, 5), False),
        ((12, 99, 6), False),
    ],
)
def test_identity(told: tuple[int, int, int | None], same: bool) -> None:
    assert Identity(12, 99, 5).matches(*told) is same


def test_where_namespaces_cannot_be_read_pid_and_start_decide() -> None:
    assert Identity(12, 99, None).matches(12, 99, 5)


def test_this_process_can_be_read() -> None:
    memory = process_table.read(os.getpid())
    assert memory is not None
    assert memory.identity.inner_pid == os.getpid()
    shared = process_table.shared_memory(os.getpid())
    assert shared is not None
    assert 0 < shared.uss_bytes <= (memory.status.rss_bytes or 0)
