"""From an exposition through the CloudWatch agent's declarations to the alarms of the stack."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
from cfnlint.decode import decode

from celery_memory_exporter.metrics.catalogue import BY_NAME
from tests.deploy.aws.agent import CloudWatchAgent, declares
from tests.deploy.aws.cloud import REGION, in_alarm, metrics_of
from tests.deploy.aws.conftest import DEPLOY, emf_of, on_beanstalk, on_ecs
from tests.deploy.aws.skips import labels_of

GOLDEN = (Path(__file__).parent.parent.parent / "data" / "golden.txt").read_text()
#: The workers of the golden exposition are celery@web1, celery@bare and celery@past.
PARAMETERS = {"ClusterName": "shop-prod", "Service": "celery"}
TARGETS = {
    "ecs": (
        on_ecs,
        {
            "job": "celery-memory-exporter",
            "ClusterName": "shop-prod",
            "TaskDefinitionFamily": "shop-worker",
        },
    ),
    "beanstalk": (on_beanstalk, {"job": "celery-memory-exporter", "ClusterName": "shop-prod"}),
}
MINUTES = 6

Exposition = Callable[[int], str]


def create(template: str, parameters: dict[str, str]) -> dict[str, str]:
    """Physical names by logical ones."""
    client = boto3.client("cloudformation", REGION)
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    client.create_stack(
        StackName="celery-memory", TemplateBody=(DEPLOY / template).read_text(), Parameters=given
    )
    resources = client.describe_stack_resources(StackName="celery-memory")["StackResources"]
    return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}


def alarms() -> dict[str, dict[str, Any]]:
    """By logical name."""
    created = create("alarms.yaml", PARAMETERS)
    described = boto3.client("cloudwatch", REGION).describe_alarms()["MetricAlarms"]
    by_name = {each["AlarmName"]: each for each in described}
    return {
        logical: by_name[physical] for logical, physical in created.items() if physical in by_name
    }


def send(target: str, exposition: Exposition) -> datetime:
    """What the agent makes of a scrape each minute; the time at which the last minute is over."""
    configured, labels = TARGETS[target]
    agent = CloudWatchAgent(*configured(), labels)
    client = boto3.client("cloudwatch", REGION)
    now = datetime.now(timezone.utc).replace(second=0, microsecond=0)
    for minute in range(MINUTES):
        data = agent.scrape(exposition(minute), now - timedelta(minutes=MINUTES - minute))
        client.put_metric_data(
            Namespace=emf_of(configured()[0])["metric_namespace"], MetricData=data
        )
    return now


def without(text: str, name: str) -> str:
    return re.sub(rf"^{name}\{{.*\n", "", text, flags=re.MULTILINE)


def with_value(text: str, series: str, value: float) -> str:
    changed, count = re.subn(
        rf"^{re.escape(series)} .*$", f"{series} {value}", text, flags=re.MULTILINE
    )
    assert count == 1, series
    return changed


HEALTHY = without(without(GOLDEN, "celery_leak_suspect"), "celery_leak_bytes_per_hour")
BROKER = 'celery_memory_exporter_source_up{source="broker"}'
KILLS = 'celery_worker_cgroup_oom_kills_total{worker="celery@web1"}'
USED = 'celery_worker_cgroup_memory_working_set_bytes{worker="celery@web1"}'
NAMELESS = """# TYPE celery_leak_suspect gauge
celery_leak_suspect{growth_class="main",holder="",name="",worker="celery@web1"} 1.0
"""
LIMIT = 512 * 2**20

SCENES: dict[str, tuple[Exposition, set[str]]] = {
    "all is well, and the kills are from before": (lambda _: HEALTHY, set()),
    "a task type leaks": (lambda _: GOLDEN, {"LeakSuspected"}),
    "a process grows, and no task type is to blame": (
        lambda _: HEALTHY + NAMELESS,
        {"LeakSuspected"},
    ),
    "the leak is mended": (lambda minute: GOLDEN if minute < 3 else HEALTHY, set()),
    "just below the limit's share": (lambda _: with_value(HEALTHY, USED, 0.84 * LIMIT), set()),
    "near the limit": (lambda _: with_value(HEALTHY, USED, 0.86 * LIMIT), {"MemoryNearLimit"}),
    "near the limit in one minute only": (
        lambda minute: with_value(HEALTHY, USED, (0.9 if minute == 4 else 0.5) * LIMIT),
        set(),
    ),
    "a child is killed now": (
        lambda minute: with_value(HEALTHY, KILLS, 2 if minute == MINUTES - 1 else 1),
        {"OomKill"},
    ),
    "a child was killed three minutes ago": (
        lambda minute: with_value(HEALTHY, KILLS, 2 if minute >= 3 else 1),
        set(),
    ),
    "the broker cannot be reached": (lambda _: with_value(HEALTHY, BROKER, 0), {"NoReports"}),
    "the broker was away for a minute": (
        lambda minute: with_value(HEALTHY, BROKER, 0 if minute == 3 else 1),
        set(),
    ),
    "nothing answers any more": (lambda minute: HEALTHY if minute == 0 else "", {"NoReports"}),
}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scene", SCENES)
def test_these_alarms_and_no_others_go_off_when(scene: str, target: str) -> None:
    exposition, expected = SCENES[scene]
    now = send(target, exposition)
    assert {name for name, alarm in alarms().items() if in_alarm(alarm, now)} == expected


@pytest.mark.parametrize("configured", [on_ecs, on_beanstalk])
def test_each_alarm_has_the_dimensions_that_are_declared_and_that_the_metric_has(
    configured: Any,
) -> None:
    declarations = emf_of(configured()[0])["metric_declaration"]
    seen = set()
    for metric in (metric for alarm in alarms().values() for metric in metrics_of(alarm)):
        names = {each["Name"] for each in metric["Dimensions"]}
        declared = [
            set(sets)
            for each in declarations
            if declares(each, metric["MetricName"])
            for sets in each["dimensions"]
        ]
        assert names in declared, metric["MetricName"]
        assert names <= labels_of(BY_NAME[metric["MetricName"]])
        assert metric["Namespace"] == emf_of(configured()[0])["metric_namespace"]
        assert not metric.get("Unit"), "a unit that is not the agent's finds no data"
        seen.add(metric["MetricName"])
    assert len(seen) == 5


@pytest.mark.parametrize("target", TARGETS)
def test_each_alarm_reads_a_metric_that_the_agent_sends(target: str) -> None:
    send(target, lambda _: GOLDEN)
    client = boto3.client("cloudwatch", REGION)
    sent = [
        (
            each["MetricName"],
            sorted((dimension["Name"], dimension["Value"]) for dimension in each["Dimensions"]),
        )
        for page in client.get_paginator("list_metrics").paginate(Namespace="CeleryMemory")
        for each in page["Metrics"]
    ]
    for alarm in alarms().values():
        for metric in metrics_of(alarm):
            assert (
                metric["MetricName"],
                sorted((each["Name"], each["Value"]) for each in metric["Dimensions"]),
            ) in sent


def test_a_metric_for_each_leaking_task_type_tells_which() -> None:
    send("ecs", lambda _: GOLDEN)
    client = boto3.client("cloudwatch", REGION)
    metrics = client.list_metrics(MetricName="celery_leak_bytes_per_hour")["Metrics"]
    assert {
        each["Value"]
        for metric in metrics
        for each in metric["Dimensions"]
        if each["Name"] == "name"
    } == {
        "shop.leak",
        'odd"name\n\\',
    }


def test_alarms_and_ended_containers_are_told_on_the_topic() -> None:
    alarm = alarms()["LeakSuspected"]
    (topic,) = boto3.client("sns", REGION).list_topics()["Topics"]
    assert alarm["AlarmActions"] == alarm["OKActions"] == [topic["TopicArn"]]
    client = boto3.client("events", REGION)
    (rule,) = client.list_rules()["Rules"]
    (target,) = client.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert target["Arn"] == topic["TopicArn"]


def test_the_rule_for_ended_containers_is_on_fields_that_ecs_tells() -> None:
    alarms()
    (rule,) = boto3.client("events", REGION).list_rules()["Rules"]
    detail = json.loads(rule["EventPattern"])["detail"]
    model = boto3.client("ecs", REGION).meta.service_model.shape_for("Task")
    assert set(detail) <= set(model.members)
    assert set(detail["containers"]) <= set(model.members["containers"].member.members)
    assert detail["clusterArn"] == ["arn:aws:ecs:eu-west-1:123456789012:cluster/shop-prod"]


def test_scaling_reads_metrics_that_are_declared_for_each_queue() -> None:
    template, _ = decode(str(DEPLOY / "scaling.yaml"))
    policy = template["Resources"]["Backlog"]["Properties"][
        "TargetTrackingScalingPolicyConfiguration"
    ]
    metrics = [
        each["MetricStat"]["Metric"]
        for each in policy["CustomizedMetricSpecification"]["Metrics"]
        if "MetricStat" in each
    ]
    declarations = emf_of(on_ecs()[0])["metric_declaration"]
    for metric in metrics:
        names = {each["Name"] for each in metric["Dimensions"]}
        declared = [
            set(sets)
            for each in declarations
            if declares(each, metric["MetricName"])
            for sets in each["dimensions"]
        ]
        assert names in declared
        assert names <= labels_of(BY_NAME[metric["MetricName"]])
    assert len(metrics) == 2
