"""``python -m tests.bench.run [part ...]``: runs the parts one after the other and prints a table
for each."""

from __future__ import annotations

import argparse
import signal
import sys
import time

from tests.bench import audit, cardinality, census, child, flat, peers, report, scrape, throughput
from tests.bench.result import BenchError, Options, Part, machine, table

PARTS: dict[str, Part] = {
    "throughput": throughput.PART,
    "recycling": throughput.RECYCLING_PART,
    "child": child.PART,
    "census": census.PART,
    "audit": audit.PART,
    "scrape": scrape.PART,
    "report": report.PART,
    "flat": flat.PART,
    "flat_recycled": flat.RECYCLED_PART,
    "peers": peers.PART,
    "cardinality": cardinality.PART,
}


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.run", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", metavar="part", help=f"{', '.join(PARTS)}; all of them by default"
    )
    parser.add_argument(
        "--rounds", type=positive, metavar="N", help="how often each figure is measured"
    )
    parser.add_argument("--tasks", type=positive, metavar="N", help="tasks that a worker runs")
    parser.add_argument(
        "--list", action="store_true", help="show the parts and their defaults, and end"
    )
    parsed = parser.parse_args()
    unknown = [name for name in parsed.parts if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS)}")
    return parsed


def defaults(part: Part) -> str:
    values = (("--rounds", part.rounds), ("--tasks", part.tasks))
    return " ".join(f"{option} {value}" for option, value in values if value is not None)


def run(name: str, part: Part, rounds: int | None, tasks: int | None) -> bool:
    """Whether the part could be measured, however it came out."""
    asked = Part(
        part.about,
        part.measure,
        part.rounds and (rounds or part.rounds),
        part.tasks and (tasks or part.tasks),
    )
    options = Options(asked.rounds or 1, asked.tasks or 0)
    facts, begun = machine(), time.monotonic()
    print(f"\n{name}: {part.about}\n{facts}", flush=True)
    try:
        rows = part.measure(options)
    except (
        BenchError,
        AssertionError,
    ) as error:  # the tests' own servers and workers tell their trouble by assertion
        options.progress.clear()
        print(f"bench: {name} could not be measured: {error}", file=sys.stderr)
        return False
    options.progress.clear()
    print(f"\n{table(rows)}\n")
    print(
        f"by python -m tests.bench.run {name} {defaults(asked)}".rstrip()
        + f"  ({time.monotonic() - begun:.0f} s)",
        flush=True,
    )
    return True


def main() -> int:
    """0 when every figure could be taken, whether it met its target or not; else 2."""
    asked = arguments()
    if asked.list:
        for name, part in PARTS.items():
            print(f"{name:<12}{part.about}\n{'':<12}{defaults(part)}")
        return 0
    signal.signal(
        signal.SIGTERM, lambda signum, _: sys.exit(128 + signum)
    )  # so that no worker or server outlives us
    measured = [run(name, PARTS[name], asked.rounds, asked.tasks) for name in asked.parts or PARTS]
    return 0 if all(measured) else 2


if __name__ == "__main__":
    sys.exit(main())
