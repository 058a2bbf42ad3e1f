"""The exporter's reading of SQS, with the rights of the policy and no more."""

from __future__ import annotations

import json

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.core import set_initial_no_auth_action_count

from celery_memory_exporter.config.loading import load
from celery_memory_exporter.config.settings import Broker
from celery_memory_exporter.sources.queue_reader import QueueReader
from tests.deploy.aws.cloud import REGION
from tests.deploy.aws.conftest import DEPLOY

POLICY = (DEPLOY / "iam" / "exporter-sqs.json").read_text()
ACCOUNT = "123456789012"


def configured() -> Broker:
    return load(DEPLOY / "exporter.sqs.yaml", {}).broker


def become(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    """From here on the environment's keys are those of a user with this policy."""
    iam = boto3.client("iam", REGION)
    iam.create_user(UserName="exporter")
    iam.put_user_policy(
        UserName="exporter",
        PolicyName="exporter",
        PolicyDocument=policy.replace("111122223333", ACCOUNT),
    )
    key = iam.create_access_key(UserName="exporter")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    monkeypatch.delenv("AWS_SESSION_TOKEN")


def fill() -> None:
    sqs = boto3.client("sqs", REGION)
    url = sqs.create_queue(QueueName="shop-celery")["QueueUrl"]
    for number in range(3):
        sqs.send_message(QueueUrl=url, MessageBody=str(number))


def lengths(names: list[str]) -> tuple[dict[str, int], Exception | None]:
    reader = QueueReader(configured(), heads=False)
    try:
        answers = reader.read(names)
    finally:
        reader.close()
    return {
        name: sum(answer.lengths.values()) for name, answer in answers.queues.items()
    }, answers.trouble


#: With policies that hold: moto lets everybody do everything unless it is told so.
enforced = set_initial_no_auth_action_count(0)(lengths)


def test_the_policy_is_enough_to_read_the_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    become(monkeypatch, POLICY)
    assert enforced(["celery"]) == ({"celery": 3}, None)


@pytest.mark.parametrize("action", ["sqs:ListQueues", "sqs:GetQueueAttributes"])
def test_no_action_of_the_policy_is_idle(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    fill()
    policy = json.loads(POLICY)
    policy["Statement"] = [each for each in policy["Statement"] if each["Action"] != action]
    become(monkeypatch, json.dumps(policy))
    try:
        found, trouble = enforced(["celery"])
    except ClientError as error:
        found, trouble = {}, error
    assert found == {}
    assert action in str(trouble)


def test_a_queue_that_is_not_there_is_told_and_not_made() -> None:
    fill()
    found, trouble = lengths(["celery", "reports"])
    assert found == {"celery": 3}
    assert "shop-reports" in str(trouble)
    assert len(boto3.client("sqs", REGION).list_queues()["QueueUrls"]) == 1


def test_the_region_is_that_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the environment's, which kombu does not look at."""
    fill()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
    assert lengths(["celery"]) == ({"celery": 3}, None)
