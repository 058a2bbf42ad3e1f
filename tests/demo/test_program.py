"""A program of the demo does not outlive it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from celery_memory_exporter.demo import program

#: Starts a child that outlives its parent, writes its pid to a pipe, and waits.
WITH_A_CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open("pid", "w") as pipe:
    pipe.write(str(child.pid))
time.sleep(600)
"""


def test_it_runs_beside_its_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    command = [sys.executable, "-c", "import os; print(os.getcwd(), os.environ['WORD'])"]
    with program.running(command, log, {**os.environ, "WORD": "told"}) as process:
        assert process.wait(30) == 0
    assert log.read_text() == f"{tmp_path} told\n"


@pytest.mark.timeout(60)
def test_it_ends_with_its_children(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    command = [sys.executable, "-c", WITH_A_CHILD]
    with program.running(command, tmp_path / "x.log") as process:
        child = psutil.Process(int((tmp_path / "pid").read_text()))
    assert process.returncode is not None
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_what_raises_beside_it_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        pytest.raises(RuntimeError, match="beside"),
        program.running(command, tmp_path / "x.log") as process,
    ):
        raise RuntimeError("beside")
    assert process.returncode is not None
