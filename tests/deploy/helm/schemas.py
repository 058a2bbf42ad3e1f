"""Whether an object is what Kubernetes takes, by its published schemas, or the Prometheus operator,
by ``operator.schema.yaml``."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.deploy.helm.chart import CHART, Object, package

jsonschema = package("jsonschema")
kubernetes_validate = package("kubernetes_validate")

OPERATOR = jsonschema.Draft7Validator(
    yaml.safe_load((Path(__file__).parent / "operator.schema.yaml").read_text())
)
#: What both raise.
Invalid = jsonschema.ValidationError


def versions() -> list[str]:
    """The oldest Kubernetes that ``Chart.yaml`` admits, and the newest that the schemas know."""
    oldest = (
        yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"]
        .removeprefix(">=")
        .removesuffix(".0-0")
    )
    return [oldest, kubernetes_validate.latest_version()]


def check(found: Object) -> None:
    """Raises ``Invalid`` with what is wrong; a key that is not known is wrong."""
    if found["apiVersion"].startswith("monitoring.coreos.com/"):
        OPERATOR.validate(found)
        return
    for version in versions():
        kubernetes_validate.validate(found, version, strict=True)
