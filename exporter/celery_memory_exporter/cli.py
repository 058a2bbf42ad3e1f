"""The commands: arguments and settings in, exit status out. ``exporter`` wires the parts."""

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

from celery_memory_exporter.common.urls import safe_url
from celery_memory_exporter.common.version import __version__
from celery_memory_exporter.config import checks
from celery_memory_exporter.config.arguments import build_parser, overrides
from celery_memory_exporter.config.loading import ConfigError, load
from celery_memory_exporter.config.settings import Config
from celery_memory_exporter.diagnosis.decoding import DecodeError, decode
from celery_memory_exporter.diagnosis.text import as_text
from celery_memory_exporter.diagnosis.verdict import UNSETTLED
from celery_memory_exporter.exporter import Exporter
from celery_memory_exporter.web.server import bind

logger = logging.getLogger("celery_memory_exporter")
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
    """Asks a running exporter who leaks; 1 when something does, 2 when it cannot be asked, 3 when
    nothing does as far as is known, and not all is known."""
    address = f"{url.rstrip('/')}/api/v1/diagnosis"
    try:
        with urllib.request.urlopen(address, timeout=REPORT_SECONDS) as response:  # noqa: S310  # the user's own address
            text = response.read().decode()
        answer = json.loads(text)
        status = report_status(answer["suspects"], answer["cleared"])
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
    return status


def report_status(suspects: Sequence[object], cleared: Sequence[Mapping[str, object]]) -> int:
    """Of the diagnosis as the exporter answers it."""
    if suspects:
        return 1
    known = cleared and all(each["growth_class"] != UNSETTLED for each in cleared)
    return 0 if known else 3


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


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.command == "report":
        return report(arguments.url, as_json=arguments.json)
    if arguments.command == "demo":
        return demo(arguments)
    try:
        settings = load(arguments.config, overrides(arguments, os.environ))
    except ConfigError as error:
        return fail(str(error))
    set_up_logging(settings)
    if arguments.command == "check-config":
        return check_config(settings, arguments.config)
    return print_once(settings, arguments.once_seconds) if arguments.once else serve(settings)


def demo(arguments: argparse.Namespace) -> int:
    from celery_memory_exporter.demo import run

    options = run.Options(
        listen_address=arguments.listen_address,
        seconds=arguments.seconds,
        prometheus=arguments.prometheus or arguments.alertmanager is not None,
        alertmanager=arguments.alertmanager,
    )
    return run.demo(options, stop_event())


def set_up_logging(settings: Config) -> None:
    logging.basicConfig(
        level=settings.log.level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("uvicorn").setLevel("WARNING")


if __name__ == "__main__":
    sys.exit(main())
