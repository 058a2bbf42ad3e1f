"""The command line as a user meets it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration import servers
from tests.integration.exporter import Exporter
from tests.integration.programs import free_port
from tests.integration.servers import running
from tests.integration.waiting import PATIENCE, contains, wait_for

pytestmark = pytest.mark.integration
COMMAND = [sys.executable, "-m", "celery_memory_exporter.cli"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_teaches() -> None:
    shown = run("--help").stdout
    for word in ("serve", "check-config", "demo", "celery_memory_exporter.autoload"):
        assert word in shown
    assert "CELERY_MEMORY_BROKER_URL" in run("serve", "--help").stdout


def test_a_bad_file_is_one_line_and_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("listen: {port: 80}\n")
    for command in ("serve", "check-config"):
        result = run(command, "--config", str(file))
        assert result.returncode == 1
        assert (
            result.stderr
            == f"celery-memory-exporter: {file}: listen.port: unknown key; allowed here: address\n"
        )


def test_check_config_shows_what_holds_without_the_password() -> None:
    result = run(
        "check-config",
        "--config",
        "config.example.yaml",
        CELERY_MEMORY_BROKER_URL="redis://:hunter2@h:6379/0",
    )
    assert result.returncode == 0
    assert "redis://:**@h:6379/0" in result.stdout
    assert "hunter2" not in result.stdout + result.stderr


def test_a_port_in_use_is_one_line_and_a_failure(tmp_path: Path) -> None:
    first = Exporter(tmp_path / "log", None)
    first.start()
    result = run("serve", "--listen-address", f"127.0.0.1:{first.port}")
    assert result.returncode == 1
    assert (
        f"cannot listen on 127.0.0.1:{first.port}: Address already in use; set another "
        "listen.address" in result.stderr
    )
    assert first.stop() == 0


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(tmp_path: Path, signum: int) -> None:
    exporter = Exporter(tmp_path / "log", None)
    exporter.start()
    assert exporter.text_of("/-/healthy")
    assert exporter.stop(signum) == 0
    assert "Traceback" not in exporter.text


def test_a_broker_that_refuses_is_told_once_an_attempt_and_tried_again(tmp_path: Path) -> None:
    exporter = Exporter(tmp_path / "log", f"redis://127.0.0.1:{free_port()}/0")
    exporter.start()
    wait_for(lambda: exporter.text, "the reason", contains("check that the broker runs there"))
    assert not exporter.ready()
    assert exporter.value("celery_memory_exporter_source_up", source="broker") == 0
    assert exporter.value("celery_memory_exporter_source_up", source="processes") == 1
    assert exporter.stop() == 0
    assert "Traceback" not in exporter.text


def test_a_wrong_password_is_told_without_the_password(tmp_path: Path) -> None:
    with running(servers.redis(tmp_path, "--requirepass", "right", "--save", "")) as server:
        exporter = Exporter(tmp_path / "log", f"redis://:hunter2@127.0.0.1:{server.port}/0")
        exporter.start()
        wait_for(lambda: exporter.text, "the reason", contains("check user and password"))
        assert "hunter2" not in exporter.text + exporter.text_of()
        exporter.stop()


@pytest.mark.parametrize(("broker", "status"), [(None, 0), ("redis://127.0.0.1:1/0", 1)])
def test_once_prints_one_exposition(broker: str | None, status: int) -> None:
    options = ["--once", "--once-seconds", "3", *(["--broker-url", broker] if broker else [])]
    result = run("serve", *options)
    assert result.returncode == status, result.stderr
    assert "# TYPE celery_memory_exporter_build_info gauge" in result.stdout
    assert 'celery_memory_exporter_source_up{source="processes"} 1.0' in result.stdout


def leftovers(folder: Path) -> list[str]:
    """What a demo with this temporary folder left: files, and processes of its application."""
    processes = [
        each
        for each in psutil.process_iter(["cmdline", "cwd"])
        if (each.info["cwd"] or "").startswith(str(folder))
    ]
    return [str(path) for path in folder.iterdir()] + [str(each) for each in processes]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The demo's temporary folder: others may run a demo as well."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


@pytest.mark.timeout(300)
def test_the_demo_names_the_leak_and_leaves_nothing_behind(folder: Path) -> None:
    result = run("demo", "--for", "45", TMPDIR=str(folder))
    assert result.returncode == 0, result.stderr
    found = result.stdout[result.stdout.index("1 leak in 1 of 1 worker") :]
    leak, _, others = found.partition("\nNot ")  # leaking, or known yet
    assert "shop.process_and_cache_data   on demo@localhost" in leak
    for told in (
        "MyCacheEntry",
        "held by    celery_memory_exporter.demo.shop._my_app_cache",
        "demo/shop.py:",
    ):
        assert told in leak
    assert "process_and_cache_data_bounded" in others
    assert "process_and_cache_data_bounded" not in leak
    assert leftovers(folder) == []


def test_the_demo_ends_by_ctrl_c_and_leaves_nothing_behind(tmp_path: Path, folder: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        environment = {**os.environ, "TMPDIR": str(folder)}
        process = subprocess.Popen(
            [*COMMAND, "demo"], stdout=out, stderr=out, start_new_session=True, env=environment
        )
    wait_for((tmp_path / "out").read_text, "the table", contains("blocks/run"))
    assert leftovers(folder), "while it runs there is something to be found"
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert leftovers(folder) == []
