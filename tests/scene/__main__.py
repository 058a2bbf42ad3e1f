"""``python -m tests.scene``: the busy shop, to look at dashboards and the page with real data."""

from __future__ import annotations

import argparse
import signal
import tempfile
from pathlib import Path

from tests.scene.scene import Scene, wait_seconds


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.scene", description=__doc__)
    parser.add_argument(
        "--for",
        dest="seconds",
        type=float,
        default=900,
        help="end by itself (default: %(default)g s)",
    )
    arguments = parser.parse_args()
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # as Ctrl-C, so that everything is ended in order
    with tempfile.TemporaryDirectory(prefix="celery-scene-") as name, Scene(Path(name)) as scene:
        print(f"Prometheus  {scene.prometheus.url}", flush=True)
        print(f"exporter    http://127.0.0.1:{scene.exporter.port}", flush=True)
        print(f"logs        {name}", flush=True)
        scene.wait_until_told()
        print("the leaks are named", flush=True)
        wait_seconds(arguments.seconds)


if __name__ == "__main__":
    main()
