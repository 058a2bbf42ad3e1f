"""The chart rendered, by Helm's own library; its objects found, and what kubectl would make of its
patch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import IN_CI

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "celery-memory-exporter"
#: Name of a case -> its file of values; ``default`` has none.
CASES = ("default", "sidecar", "daemonset", "everything")

Object = dict[str, Any]


def package(name: str) -> Any:
    """An installed package. Without it the tests skip; in CI they fail."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if IN_CI:
            raise
        pytest.skip(f"{name} is not installed: pip install '.[deploy]'", allow_module_level=True)


helm = package("helm_python")
generate = package("deploy.kubernetes.generate")


def values(case: str) -> dict[str, Any]:
    return (
        {}
        if case == "default"
        else yaml.safe_load((CHART / "ci" / f"{case}-values.yaml").read_text())
    )


@dataclass(frozen=True)
class Rendered:
    """What one set of values makes."""

    notes: str
    objects: list[Object]

    def all(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Object:
        """The only object of the kind whose name ends so."""
        (found,) = [each for each in self.all(kind) if each["metadata"]["name"].endswith(suffix)]
        return found

    def pod(self) -> Object:
        """The pod template: of mode sidecar that of a worker with the patch."""
        if self.all("Deployment") or self.all("DaemonSet"):
            return (self.all("Deployment") or self.all("DaemonSet"))[0]["spec"]["template"]
        return patched(WORKER, self)["spec"]["template"]

    def container(self) -> Object:
        spec = self.pod()["spec"]
        (found,) = [
            each
            for each in [*spec.get("initContainers", []), *spec.get("containers", [])]
            if each["name"] == "celery-memory-exporter"
        ]
        return found


def parse(texts: dict[str, str]) -> Rendered:
    manifests = [text for name, text in texts.items() if name != "NOTES.txt"]
    return Rendered(
        texts["NOTES.txt"],
        [each for text in manifests for each in yaml.safe_load_all(text) if each],
    )


def render(settings: dict[str, Any]) -> Rendered:
    return parse(generate.render(settings))


@cache
def rendered(case: str) -> Rendered:
    return render(values(case))


#: A worker as teams have it: without the agent, restricted, with containers and volumes of its own.
WORKER: Object = yaml.safe_load("""
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
      initContainers: [{name: migrate, image: "proj:1", command: [proj, migrate]}]
      containers:
        - name: worker
          image: "proj:1"
          command: [celery, -A, proj, worker]
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {}}]
""")


def patched(workload: Object, release: Rendered) -> Object:
    """The workload with the release's patch, as ``kubectl patch`` merges it."""
    return strategic_merge(
        workload, yaml.safe_load(release.one("ConfigMap", "-sidecar")["data"]["patch.yaml"])
    )


def strategic_merge(base: Any, patch: Any) -> Any:
    """A stand-in for kubectl's: mappings are merged, and so are lists of things with names, by
    name; new ones go first."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return {
            key: strategic_merge(base.get(key), patch.get(key))
            for key in [*base, *(key for key in patch if key not in base)]
        }
    if isinstance(base, list) and isinstance(patch, list):
        old, new = ({each["name"]: each for each in items} for items in (base, patch))
        merged = [strategic_merge(each, new.get(name)) for name, each in old.items()]
        return [*(each for name, each in new.items() if name not in old), *merged]
    return base if patch is None else patch
