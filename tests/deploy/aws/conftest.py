"""A made-up account: no test here reaches the network. Without the extra ``deploy`` the tests skip;
in CI they fail."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import IN_CI

DEPLOY = Path(__file__).parents[3] / "deploy" / "aws"
ABSENT = [
    name
    for name in ("moto", "boto3", "cfnlint", "jsonschema")
    if importlib.util.find_spec(name) is None
]


class Skipped(pytest.Module):
    """Is not imported, since it would need what is not installed."""

    def collect(self) -> Any:
        pytest.skip(f"not installed: {', '.join(ABSENT)}: pip install '.[deploy]'")


def pytest_pycollect_makemodule(
    module_path: Path, parent: pytest.Collector
) -> pytest.Module | None:
    return Skipped.from_parent(parent, path=module_path) if ABSENT and not IN_CI else None


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from moto import mock_aws

    from tests.deploy.aws.cloud import REGION

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield


def on_ecs() -> tuple[dict[str, Any], dict[str, Any]]:
    """The agent's configuration and Prometheus' on ECS."""
    return json.loads((DEPLOY / "cloudwatch-agent.json").read_text()), yaml.safe_load(
        (DEPLOY / "prometheus.yaml").read_text()
    )


def extension() -> dict[str, Any]:
    """Elastic Beanstalk's, whose references to the environment are resolved to ``shop-prod``."""
    text = (DEPLOY / "beanstalk" / ".ebextensions" / "celery-memory.config").read_text()
    loaded: dict[str, Any] = yaml.safe_load(
        text.replace('`{"Ref": "AWSEBEnvironmentName"}`', "shop-prod")
    )
    return loaded


def on_beanstalk() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same two on Elastic Beanstalk."""
    files = extension()["files"]
    return (
        json.loads(files["/etc/celery-memory/cloudwatch-agent.json"]["content"]),
        yaml.safe_load(files["/etc/celery-memory/prometheus.yaml"]["content"]),
    )


def emf_of(config: dict[str, Any]) -> dict[str, Any]:
    emf: dict[str, Any] = config["logs"]["metrics_collected"]["prometheus"]["emf_processor"]
    return emf


def job_of(scrape: dict[str, Any]) -> dict[str, Any]:
    (job,) = scrape["scrape_configs"]
    return job  # type: ignore[no-any-return]
