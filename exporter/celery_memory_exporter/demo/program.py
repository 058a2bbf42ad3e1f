"""A program that the demo starts, and that does not outlive it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

STOP_SECONDS = 10.0


@contextlib.contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the program in the folder of its log, and ends it with its children at the end."""
    with log.open("wb") as output:
        # Of its own session, so that Ctrl-C reaches the demo alone, which then ends it in order.
        process = subprocess.Popen(  # noqa: S603  # our own command line
            command,
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd=log.parent,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process, log.stem)


def end(process: subprocess.Popen[bytes], name: str) -> None:
    """Ends it in order, for a worker a warm shutdown; whatever is left of its session after that is
    killed."""
    process.terminate()
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"The {name} does not stop; killing it.", file=sys.stderr)
    with contextlib.suppress(ProcessLookupError):  # nothing is left, as it should be
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
