"""Writes the plain manifests: what the chart renders, without what only Helm needs. A test holds
the committed ones to that.

Not among them are the dashboards: ``kubectl create configmap --from-file`` makes them from
``grafana/dashboards``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import helm_python
import yaml

HERE = Path(__file__).parent
CHART = HERE.parent / "helm" / "celery-memory-exporter"
RELEASE = "celery-memory-exporter"
HEADER = (
    "# Rendered from deploy/helm/celery-memory-exporter by python -m deploy.kubernetes.generate\n"
)
#: Labels that say that Helm manages an object, and the annotation by which an upgrade restarts
#: pods.
HELM_ONLY = re.compile(
    r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by):.*\n"
    r"|^ *annotations:\n *checksum/config:.*\n",
    re.MULTILINE,
)
#: The placeholders of ``grafana/rules``, so that the rules are the same as there.
LINKS = {
    "grafanaUrl": "https://grafana.example.com",
    "runbookUrl": "https://runbooks.example.com/celery",
}


def render(values: dict[str, Any], chart: Path = CHART) -> dict[str, str]:
    """Name below ``templates/`` -> what Helm makes of it, of those that make anything. Raises
    ``helm_python.HelmError``."""
    with helm_python.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        rendered = loaded.render(values, name=RELEASE, namespace="default")
    return {Path(path).name: text for path, text in rendered.items() if text.strip()}


def files() -> dict[str, str]:
    """Path below ``deploy/kubernetes/`` -> content."""
    result = {}
    for mode in ("fleet", "sidecar", "daemonset"):
        rendered = render(
            {
                "mode": mode,
                "monitor": {"enabled": True},
                "networkPolicy": {"enabled": mode != "sidecar"},
            }
        )
        del rendered["NOTES.txt"]
        result[f"{mode}/monitor.yaml"] = rendered.pop("monitor.yaml")
        if mode == "sidecar":
            result["sidecar/patch.yaml"] = yaml.safe_load(rendered.pop("sidecar.yaml"))["data"][
                "patch.yaml"
            ]
        result[f"{mode}/exporter.yaml"] = "---\n".join(
            f"{text.strip()}\n" for _, text in sorted(rendered.items())
        )
    result["rules.yaml"] = render({"prometheusRule": {"enabled": True}, **LINKS})[
        "prometheusrule.yaml"
    ]
    return {path: HEADER + HELM_ONLY.sub("", f"{text.strip()}\n") for path, text in result.items()}


def main() -> None:
    for path, content in files().items():
        target = HERE / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(content)
        print(target)


if __name__ == "__main__":
    main()
