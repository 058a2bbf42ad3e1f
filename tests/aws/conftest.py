"""A made-up account: no test here reaches the network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto import mock_aws

from tests.aws.cloud import REGION

DEPLOY = Path(__file__).parent.parent.parent / "deploy" / "aws"


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    with mock_aws():
        yield


def on_ecs() -> tuple[dict[str, Any], dict[str, Any]]:
    """The agent's configuration and Prometheus' on ECS."""
    return json.loads((DEPLOY / "cloudwatch-agent.json").read_text()), yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())


def extension() -> dict[str, Any]:
    """Elastic Beanstalk's, whose references to the environment are resolved to ``shop-prod``."""
    text = (DEPLOY / "beanstalk" / ".ebextensions" / "celery-memory.config").read_text()
    loaded: dict[str, Any] = yaml.safe_load(text.replace('`{"Ref": "AWSEBEnvironmentName"}`', "shop-prod"))
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
