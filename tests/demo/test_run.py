"""How the demo begins and ends; the whole of it is in the integration tests."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import pytest

from celery_memory_exporter.demo import run
from celery_memory_exporter.web.server import bind


@pytest.fixture
def stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


def test_an_address_that_is_taken_is_one_line_and_a_failure(
    stopped: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    with bind("127.0.0.1", 0) as taken:
        address = run.address_of(taken)
        assert run.demo(run.Options(address), stopped) == 1
    assert capsys.readouterr().err.startswith(
        f"celery-memory-exporter: cannot listen on {address}: "
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_address_of_a_listener_can_be_asked(host: str) -> None:
    with bind(host, 0) as listener:
        port = listener.getsockname()[1]
        assert run.address_of(listener) == (f"[::1]:{port}" if ":" in host else f"{host}:{port}")


def test_the_workplace_is_the_broker_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", tempfile.gettempdir())
    monkeypatch.setenv("CELERY_MEMORY_DEMO_FOLDER", "")
    monkeypatch.setattr(tempfile, "tempdir", None)
    with run.workplace() as folder:
        assert {path.name for path in folder.iterdir()} == {"messages", "control"}
        assert os.environ["CELERY_MEMORY_DEMO_FOLDER"] == tempfile.gettempdir() == str(folder)
    assert not folder.exists()


def test_a_worker_that_fails_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    told = str(run.WorkerError("ended with status 1", log)).splitlines()
    assert told[0] == "the demo's worker ended with status 1. The end of its log:"
    assert told[1:] == [f"line {number}" for number in range(80, 100)]
