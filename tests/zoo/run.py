"""Runs the leak zoo: ``python -m tests.zoo.run [case ...]``. Each case has a broker, a worker and
an exporter of its own.

The exit status is 1 when recall, precision, attribution or never cleared is below its limit, or
when a case had trouble.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.integration.programs import free_port
from tests.integration.servers import Server
from tests.zoo import judge, others, reported  # noqa: F401  # the modules make the cases
from tests.zoo.case import CASES, Case
from tests.zoo.crowd import crowd
from tests.zoo.judge import Verdict
from tests.zoo.stage import POLL_SECONDS, STOP, run_case


@dataclass
class Printer:
    """One line for a case: rewritten on a terminal, else repeated now and then."""

    every: float
    rewrite: bool
    last: float = 0.0

    def __call__(self, verdict: Verdict) -> None:
        if time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.write(verdict, "\r" if self.rewrite else "\n")

    def write(self, verdict: Verdict, end: str = "\n") -> None:
        first = verdict.named_first
        said = f"named after {first.runs} runs, {first.seconds:.0f} s" if first else "not named"
        wrong = f"; wrong: {', '.join(sorted(verdict.wrong_ever))}" if verdict.wrong_ever else ""
        text = (
            f"{verdict.case.name:<28}{verdict.runs:>6} runs {verdict.seconds:>4.0f} s  "
            f"{said}{wrong}"
        )
        print(f"{text:<110}", end=end, flush=True)


def redis_server(folder: Path) -> Server:
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not installed; tests/prepare.sh servers installs it")
    port = free_port()
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    return Server(command, folder / "redis.log", f"redis://127.0.0.1:{port}/0", port)


def run_alone(case: Case, logs: Path, printer: Printer) -> Verdict:
    """With a broker of its own. What goes wrong around a case is its trouble, and the others still
    run."""
    folder = logs / case.name
    folder.mkdir(parents=True, exist_ok=True)
    broker = redis_server(folder)
    try:
        broker.start()
        verdict = run_case(case, broker, folder, printer)
    except (AssertionError, OSError) as error:
        verdict = Verdict(case, trouble=str(error))
    finally:
        broker.ensure_stopped()
    printer.write(verdict)
    if verdict.trouble:
        print(f"  {verdict.trouble}", flush=True)
    return verdict


def plain(verdict: Verdict) -> dict[str, Any]:
    """For ``--json``."""
    fields = {
        key: value for key, value in asdict(replace(verdict, case=None)).items() if key != "case"
    }  # type: ignore[arg-type]
    fields["wrong_at_end"] = sorted(verdict.wrong_at_end)
    case = verdict.case
    expected = {
        "leaks": case.leaks,
        "task": case.task,
        "classes": sorted(case.classes),
        "explained_by": case.explained_by,
    }
    derived = {
        "verdict": verdict.words,
        "class_right": verdict.class_right,
        "explained": verdict.explained,
    }
    return {"case": case.name, "expected": expected, **derived, **fields}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.zoo.run", description="Leaks and innocents in real workers."
    )
    parser.add_argument("cases", nargs="*", metavar="case", help="default: all")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    parser.add_argument(
        "--runs", type=int, help="runs of each case's task instead of the case's own number"
    )
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument(
        "--crowd", type=int, default=0, metavar="N", help="beside so many other busy programs"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write verdicts, figures and the last answers"
    )
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the programs' logs there")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; --list prints them")
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    cases = [CASES[name] for name in arguments.cases or CASES]
    if arguments.list:
        for case in cases:
            kind, classes = "leak" if case.leaks else "innocent", "/".join(sorted(case.classes))
            print(f"{case.name:<28}{kind:<10}{classes:<24}{' '.join(case.pool)}")
        return 0
    if arguments.runs:
        cases = [replace(case, runs=arguments.runs) for case in cases]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rewrite = sys.stdout.isatty() and arguments.jobs == 1
    every = POLL_SECONDS if rewrite else 10.0
    with (
        tempfile.TemporaryDirectory(prefix="zoo-") as temporary,
        ThreadPoolExecutor(arguments.jobs) as pool,
        crowd(arguments.crowd),
    ):
        logs = arguments.logs or Path(temporary)
        try:
            verdicts = list(
                pool.map(lambda case: run_alone(case, logs, Printer(every, rewrite)), cases)
            )
        except KeyboardInterrupt:
            STOP.set()
            pool.shutdown(cancel_futures=True)
            return 128 + signal.SIGINT
    found = judge.figures(verdicts)
    print(f"\n{judge.table(verdicts)}\n\n{judge.summary(verdicts)}")
    if arguments.json:
        shares = {name: str(value) for name, value in found.items()}
        trend = {name: str(value) for name, value in judge.baseline_figures(verdicts).items()}
        text = json.dumps(
            {"figures": shares, "rss_trend": trend, "cases": list(map(plain, verdicts))},
            indent=2,
            default=str,
        )
        arguments.json.write_text(text + "\n")
    return 0 if judge.passed(found) and not any(each.trouble for each in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
