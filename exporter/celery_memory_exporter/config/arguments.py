"""The command line: what each command takes, and which settings that overrides."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from celery_memory_exporter.common.version import __version__
from celery_memory_exporter.config.loading import ENVIRONMENT

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

#: Of ``--once``: one default report interval (15 s) and a second, so that each agent has reported
#: once.
ONCE_SECONDS = 16.0
REPORT_URL = "http://localhost:9808"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="celery-memory-exporter",
        description=(
            "Prometheus metrics about the memory of Celery workers: who grows, which task type, "
            "what is left behind."
        ),
        epilog=(
            "In the worker, turn the agent on: celery -A proj worker -I "
            "celery_memory_exporter.autoload"
        ),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_serve(commands)
    add_check_config(commands)
    add_report(commands)
    add_demo(commands)
    return parser


def add_serve(commands: Commands) -> None:
    doc = "run the exporter: consume reports, read the process table, answer on /metrics"
    command = commands.add_parser("serve", help=doc, description=doc.capitalize() + ".")
    add_settings(command)
    command.add_argument(
        "--once", action="store_true", help="collect once, print the exposition, and end"
    )
    command.add_argument(
        "--once-seconds",
        type=float,
        default=ONCE_SECONDS,
        metavar="S",
        help="how long --once waits for reports (default %(default)g)",
    )


def add_check_config(commands: Commands) -> None:
    doc = "read the configuration, say what is wrong with it, and end"
    add_settings(commands.add_parser("check-config", help=doc, description=doc.capitalize() + "."))


def add_settings(command: argparse.ArgumentParser) -> None:
    """What is configured on the command line; ``overrides`` reads it."""
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file, see config.example.yaml"
    )
    command.add_argument(
        "--broker-url", metavar="URL", help="the workers' broker [CELERY_MEMORY_BROKER_URL]"
    )
    command.add_argument(
        "--listen-address",
        metavar="HOST:PORT",
        help="default :9808 [CELERY_MEMORY_LISTEN_ADDRESS]",
    )
    command.add_argument(
        "--log-level",
        metavar="LEVEL",
        help="debug, info, warning, error [CELERY_MEMORY_LOG_LEVEL]",
    )


def add_report(commands: Commands) -> None:
    command = commands.add_parser(
        "report",
        help="ask a running exporter who leaks; exit status 1 when something does",
        description=(
            "Ask a running exporter which task types leak, what they leave behind, who holds it, "
            "and on which line it was made. The exit status is 0 when nothing leaks, 1 when "
            "something does, 2 when the exporter cannot be asked, and 3 when no leak is known but "
            "not all task types are judged yet."
        ),
    )
    command.add_argument(
        "--url", default=REPORT_URL, help="where the exporter answers (default %(default)s)"
    )
    command.add_argument(
        "--json", action="store_true", help="what /api/v1/diagnosis answers, as it is"
    )


def add_demo(commands: Commands) -> None:
    command = commands.add_parser(
        "demo",
        help="see a leaking task found: a real worker, no broker and no server to install",
        description=(
            "Start a real worker with the agent, a leaking task among healthy ones, a steady load "
            "and the exporter, in a temporary folder, and show what the exporter finds. Ctrl-C "
            "ends it and leaves nothing behind."
        ),
    )
    command.add_argument(
        "--for",
        dest="seconds",
        type=float,
        metavar="SECONDS",
        help="end by itself and print the summary",
    )
    command.add_argument(
        "--prometheus",
        action="store_true",
        help=(
            "also start the prometheus that is installed here, with this project's rules, and show "
            "its alerts"
        ),
    )
    command.add_argument(
        "--alertmanager",
        metavar="HOST:PORT",
        help="tell this Alertmanager of them; implies --prometheus",
    )
    command.add_argument(
        "--listen-address",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        help="default: any free port on loopback",
    )


def overrides(
    arguments: argparse.Namespace, environment: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """Key path -> value and where it comes from; the command line wins over the environment."""
    result = {
        key: (environment[name], name) for name, key in ENVIRONMENT.items() if environment.get(name)
    }
    for flag, key in (
        ("broker_url", "broker.url"),
        ("listen_address", "listen.address"),
        ("log_level", "log.level"),
    ):
        value = getattr(arguments, flag)
        if value is not None:
            result[key] = (value, f"--{flag.replace('_', '-')}")
    return result
