"""The commands, in this process; as a user meets them they are in the integration tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from celery_memory_exporter import __version__, cli
from celery_memory_exporter.config.settings import Broker, Config, Listen, Processes
from celery_memory_exporter.web.server import bind


def test_the_package_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery_memory_exporter", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"celery-memory-exporter {__version__}\n"


def test_a_configuration_that_holds_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(
        broker=Broker(url="redis://:s3cret@h/0", events_url="amqp://me:s3cret@h//"),
        processes=Processes(interval_seconds=2.5),
    )
    assert cli.check_config(config, Path("c.yaml")) == 0
    assert capsys.readouterr().out.splitlines() == [
        "c.yaml: valid",
        "  broker   redis://:**@h/0, events at amqp://me:**@h//",
        "  listen   :9808",
        "  process  every 2.5 s",
    ]


def test_defaults_are_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.check_config(Config(processes=Processes(enabled=False)), None) == 0
    assert capsys.readouterr().out.splitlines() == [
        "defaults: valid",
        "  broker   none, the local process table only",
        "  listen   :9808",
        "  process  off",
    ]


def test_a_mistake_in_the_configuration_is_one_line_and_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("listen: {port: 80}\n")
    assert cli.main(["check-config", "--config", str(file)]) == 1
    assert capsys.readouterr().err.startswith(
        f"celery-memory-exporter: {file}: listen.port: unknown key"
    )


def test_an_address_that_is_taken_is_a_failure_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with bind("127.0.0.1", 0) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert cli.serve(Config(listen=Listen(address))) == 1
    assert capsys.readouterr().err == (
        f"celery-memory-exporter: cannot listen on {address}: Address already in use; set another "
        "listen.address (--listen-address)\n"
    )


def test_once_prints_an_exposition(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert cli.print_once(Config(), seconds=0.0) == 0
    assert 'celery_memory_exporter_source_up{source="processes"} 1.0' in capsys.readouterr().out


def test_once_fails_where_a_source_did_not_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    config = Config(broker=Broker(url="unheard-of://"))
    assert cli.print_once(config, seconds=0.0) == 1
    shown = capsys.readouterr()
    assert "celery_memory_exporter_build_info" in shown.out
    assert "broker: not connected; queues: cannot be read" in shown.err
