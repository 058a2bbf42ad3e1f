"""The command line: arguments and settings in, exit status out. ``exporter.Exporter`` wires the
parts."""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from celery_memory_exporter import __version__
from celery_memory_exporter.common.urls import safe_url
from celery_memory_exporter.config import checks
from celery_memory_exporter.config.loading import ENVIRONMENT, ConfigError, load
from celery_memory_exporter.config.settings import Config
from celery_memory_exporter.diagnosis.decoding import DecodeError, decode
from celery_memory_exporter.diagnosis.text import as_text
from celery_memory_exporter.exporter import Exporter
from celery_memory_exporter.web.server import bind

logger = logging.getLogger("celery_memory_exporter")

#: ``--once``: how long to collect events before printing, in report intervals' default plus a
#: second.
ONCE_SECONDS = 16.0
REPORT_URL = "http://localhost:9808"
REPORT_SECONDS = 10.0


def serve(settings: Config) -> int:
    """Runs until SIGTERM or SIGINT; the answer is the exit status."""
    stop = stop_event()
    try:
        listener = bind(*checks.split_address(settings.listen.address))
    except OSError as error:
        reason = (
            os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        )  # resolver errors are negative
        return fail(
            f"cannot listen on {settings.listen.address}: {reason}; set another listen.address "
            "(--listen-address)"
        )
    exporter = Exporter(settings, listener)
    exporter.start()
    logger.info("celery-memory-exporter %s listens on %s", __version__, settings.listen.address)
    stop.wait()
    logger.info("stopping")
    exporter.stop()
    return 0


def print_once(settings: Config, seconds: float) -> int:
    """Collects for a while, prints one exposition on standard output, and ends; 1 when a source did
    not work."""
    stop = stop_event()
    exporter = Exporter(settings)
    exporter.start()
    if settings.all_brokers():
        logger.info("collecting reports for %.0f s", seconds)
        stop.wait(seconds)
    sys.stdout.write(exporter.exposition())
    failed = exporter.unready()
    exporter.stop()
    return (
        fail("; ".join(f"{source}: {reason}" for source, reason in failed.items())) if failed else 0
    )


def report(url: str, *, as_json: bool) -> int:
    """Asks a running exporter who leaks; 1 when something does, 2 when it cannot be asked."""
    address = f"{url.rstrip('/')}/api/v1/diagnosis"
    try:
        with urllib.request.urlopen(address, timeout=REPORT_SECONDS) as response:  # noqa: S310  # the user's own address
            text = response.read().decode()
        answer = json.loads(text)
        suspects = answer["suspects"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        fail(
            f"no diagnosis at {address}: {reason}; is the exporter running there? Give its address "
            "with --url"
        )
        return 2
    try:
        print(text if as_json else as_text(decode(answer)))
    except DecodeError as error:
        fail(
            f"cannot read the diagnosis at {address}: {error}; is that exporter of another version "
            f"than {__version__}? --json prints its answer as it is"
        )
        return 2
    return 1 if suspects else 0


def stop_event() -> threading.Event:
    """Set by the first SIGTERM or SIGINT."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def fail(message: str) -> int:
    print(f"celery-memory-exporter: {message}", file=sys.stderr)
    return 1


def check_config(settings: Config, path: Path | None) -> int:
    print(f"{path or 'defaults'}: valid")
    for broker in settings.all_brokers():
        events = f", events at {safe_url(broker.events_url)}" if broker.events_url else ""
        print(
            "  broker   "
            f"{broker.name + ' ' if broker.name else ''}{safe_url(broker.url or '')}{events}"
        )
    if not settings.all_brokers():
        print("  broker   none, the local process table only")
    print(f"  listen   {settings.listen.address}")
    processes = settings.processes
    print(f"  process  {f'every {processes.interval_seconds:g} s' if processes.enabled else 'off'}")
    return 0


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
    for name, doc in (
        ("serve", "run the exporter: consume reports, read the process table, answer on /metrics"),
        ("check-config", "read the configuration, say what is wrong with it, and end"),
    ):
        command = commands.add_parser(name, help=doc, description=doc.capitalize() + ".")
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
    serving = commands.choices["serve"]
    serving.add_argument(
        "--once", action="store_true", help="collect once, print the exposition, and end"
    )
    serving.add_argument(
        "--once-seconds",
        type=float,
        default=ONCE_SECONDS,
        metavar="S",
        help="how long --once waits for reports (default %(default)g)",
    )
    reporting = commands.add_parser(
        "report",
        help="ask a running exporter who leaks; exit status 1 when something does",
        description=(
            "Ask a running exporter which task types leak, what they leave behind, who holds it, "
            "and on which line it was made. The exit status is 0 when nothing leaks, 1 when "
            "something does, and 2 when the exporter cannot be asked."
        ),
    )
    reporting.add_argument(
        "--url", default=REPORT_URL, help="where the exporter answers (default %(default)s)"
    )
    reporting.add_argument(
        "--json", action="store_true", help="what /api/v1/diagnosis answers, as it is"
    )
    demo = commands.add_parser(
        "demo",
        help="see a leaking task found: a real worker, no broker and no server to install",
        description=(
            "Start a real worker with the agent, a leaking task among healthy ones, a steady load "
            "and the exporter, in a temporary folder, and show what the exporter finds. Ctrl-C "
            "ends it and leaves nothing behind."
        ),
    )
    demo.add_argument(
        "--for",
        dest="seconds",
        type=float,
        metavar="SECONDS",
        help="end by itself and print the summary",
    )
    demo.add_argument(
        "--prometheus",
        action="store_true",
        help=(
            "also start the prometheus that is installed here, with this project's rules, and show "
            "its alerts"
        ),
    )
    demo.add_argument(
        "--alertmanager",
        metavar="HOST:PORT",
        help="tell this Alertmanager of them; implies --prometheus",
    )
    demo.add_argument(
        "--listen-address",
        default="127.0.0.1:0",
        metavar="HOST:PORT",
        help="default: any free port on loopback",
    )
    return parser


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


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.command == "report":
        return report(arguments.url, as_json=arguments.json)
    if arguments.command == "demo":
        from celery_memory_exporter.demo import run

        with_prometheus = arguments.prometheus or arguments.alertmanager is not None
        options = run.Options(
            arguments.listen_address, arguments.seconds, with_prometheus, arguments.alertmanager
        )
        return run.demo(options, stop_event())
    try:
        settings = load(arguments.config, overrides(arguments, os.environ))
    except ConfigError as error:
        return fail(str(error))
    logging.basicConfig(
        level=settings.log.level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("uvicorn").setLevel("WARNING")
    if arguments.command == "check-config":
        return check_config(settings, arguments.config)
    return print_once(settings, arguments.once_seconds) if arguments.once else serve(settings)


if __name__ == "__main__":
    sys.exit(main())
