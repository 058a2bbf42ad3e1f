"""The command line's arguments, and which settings they override."""

from __future__ import annotations

import pytest

from celery_memory_exporter import __version__
from celery_memory_exporter.config.arguments import ONCE_SECONDS, build_parser, overrides
from celery_memory_exporter.config.loading import ENVIRONMENT


def overridden(*arguments: str, **environment: str) -> dict[str, tuple[str, str]]:
    return overrides(build_parser().parse_args(["serve", *arguments]), environment)


def test_nothing_is_overridden_unless_it_is_said() -> None:
    assert overridden() == {}
    assert overridden(CELERY_MEMORY_BROKER_URL="") == {}
    assert overridden(PATH="/bin") == {}


def test_every_variable_of_the_environment_is_a_setting() -> None:
    told = overridden(**{name: f"value of {name}" for name in ENVIRONMENT})
    assert told == {key: (f"value of {name}", name) for name, key in ENVIRONMENT.items()}


def test_the_command_line_wins_over_the_environment() -> None:
    told = overridden("--broker-url", "redis://a", CELERY_MEMORY_BROKER_URL="redis://b")
    assert told == {"broker.url": ("redis://a", "--broker-url")}


def test_each_argument_of_serve_is_a_setting() -> None:
    arguments = ["--broker-url", "x", "--listen-address", ":1", "--log-level", "debug"]
    assert overridden(*arguments) == {
        "broker.url": ("x", "--broker-url"),
        "listen.address": (":1", "--listen-address"),
        "log.level": ("debug", "--log-level"),
    }


def test_an_empty_argument_is_said() -> None:
    assert overridden("--broker-url", "") == {"broker.url": ("", "--broker-url")}


@pytest.mark.parametrize("command", ["serve", "check-config", "report", "demo"])
def test_every_command_has_a_help_that_ends_well(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    assert f"celery-memory-exporter {command}" in capsys.readouterr().out


def test_a_command_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--version"])
    assert capsys.readouterr().out == f"celery-memory-exporter {__version__}\n"


def test_defaults() -> None:
    serve, report, demo = (
        build_parser().parse_args([each]) for each in ("serve", "report", "demo")
    )
    assert (serve.once, serve.once_seconds, serve.config) == (False, ONCE_SECONDS, None)
    assert (report.url, report.json) == ("http://localhost:9808", False)
    assert (demo.seconds, demo.prometheus, demo.listen_address) == (None, False, "127.0.0.1:0")
