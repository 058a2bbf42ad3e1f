"""What outlives a worker, and what it does where nothing can."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest

from celery_memory_exporter.agent.worker.shared_map import Shape
from celery_memory_exporter.agent.worker.state import State, begin_of, open_folder, prefix_of
from celery_memory_exporter.agent.worker.state_folder import StateFolder

SHAPE = Shape.of_one(1, 10)
NAME = "celery@web/../1"


def test_files_are_of_one_worker_whatever_its_name_has_in_it() -> None:
    folder = StateFolder(None)
    state = State(folder, NAME, SHAPE)
    state.keep({"worker": NAME}, {}, [], 0)
    assert state.kept
    assert folder.names() == [f"{state.name}.json", f"{state.name}.map"]
    assert state.name.startswith(prefix_of(NAME))
    assert begin_of(state.name) > 1.7e18
    assert prefix_of(NAME) != prefix_of("celery@web1")


def test_of_a_worker_that_has_told_all_nothing_is_kept_any_more() -> None:
    folder = StateFolder(None)
    state = State(folder, NAME, SHAPE)
    state.keep({}, {}, [], 0)
    state.remove()
    state.keep({}, {}, [], 0)
    assert (state.kept, folder.names()) == (False, [])
    assert state.shared.new_row(0, 1, ("t", "q")) is not None, "what runs still is counted"


def test_without_a_folder_all_works_in_memory() -> None:
    state = State(None, NAME, SHAPE)
    state.keep({}, {}, [], 0)
    state.remove()
    assert not state.kept
    assert state.shared.new_row(0, 1, ("t", "q")) is not None


@pytest.mark.parametrize("parent", [None, "/proc/nowhere"])
def test_where_there_can_be_no_folder_it_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, parent: str | None
) -> None:
    (tmp_path / f"celery-memory-exporter-{os.geteuid()}").mkdir(mode=0o755)
    with caplog.at_level(logging.INFO):
        assert open_folder(parent) is None
    (record,) = caplog.records
    assert record.levelno == (logging.INFO if parent is None else logging.WARNING)


class Full(StateFolder):
    """On a disk that has no room."""

    def create(self, name: str, size: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_all_works_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    folder = Full(None)
    state = State(folder, NAME, SHAPE)
    assert (state.kept, folder.names()) == (False, [])
    assert "No space left" in caplog.text
    assert state.shared.new_row(0, 1, ("t", "q")) is not None


def test_a_name_that_tells_no_beginning_is_the_oldest() -> None:
    assert begin_of("something.else") == 0
