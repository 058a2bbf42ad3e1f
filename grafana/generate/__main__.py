"""Writes ``grafana/dashboards`` and ``grafana/rules``. What is committed is what this writes; a
test holds it to that."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from grafana.generate import alerts
from grafana.generate.dashboards import exporter, fleet, queues, task, worker

HERE = Path(__file__).parent.parent
GRAFANA_URL, RUNBOOK_URL = "https://grafana.example.com", "https://runbooks.example.com/celery"
DASHBOARDS = (fleet, worker, task, queues, exporter)


def files(grafana_url: str = GRAFANA_URL, runbook_url: str = RUNBOOK_URL) -> dict[str, str]:
    """Path below ``grafana/`` -> content."""
    dashboards = {
        f"dashboards/{each.UID}.json": json.dumps(each.build(), indent=2) + "\n"
        for each in DASHBOARDS
    }
    rules = {
        f"rules/{name}": alerts.to_yaml(content)
        for name, content in alerts.rule_files(grafana_url, runbook_url).items()
    }
    return dashboards | rules


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m grafana.generate",
        description=(
            "Write the dashboards and the rules, "
            "with alerts that link to your Grafana and your runbooks."
        ),
    )
    parser.add_argument(
        "--grafana-url",
        default=GRAFANA_URL,
        help="where your Grafana answers (default: %(default)s)",
    )
    parser.add_argument(
        "--runbook-url",
        default=RUNBOOK_URL,
        help="where docs/runbooks is published (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=HERE,
        metavar="DIR",
        help="with dashboards/ and rules/ (default: grafana/)",
    )
    arguments = parser.parse_args()
    for path, content in files(
        arguments.grafana_url.rstrip("/"), arguments.runbook_url.rstrip("/")
    ).items():
        target = arguments.output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        print(target)


if __name__ == "__main__":
    main()
