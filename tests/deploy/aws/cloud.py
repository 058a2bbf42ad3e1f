"""CloudFormation's resources that moto does not know, and the evaluation of alarms, which moto
leaves out."""

from __future__ import annotations

import operator
from datetime import datetime, timedelta
from typing import Any

import boto3
from moto.core.common_models import CloudFormationModel

REGION = "eu-west-1"
COMPARISONS = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
}


class Resource(CloudFormationModel):
    """Keeps its properties, as CloudFormation has resolved them."""

    def __init__(self, name: str, properties: dict[str, Any]) -> None:
        self.physical_resource_id = name
        self.properties = properties

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @staticmethod
    def cloudformation_type() -> str:
        return "none"

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return False

    @classmethod
    def create_from_cloudformation_json(
        cls,
        resource_name: str,
        cloudformation_json: dict[str, Any],
        account_id: str,
        region_name: str,
        **kwargs: Any,
    ) -> Resource:
        return cls(resource_name, cloudformation_json["Properties"])


# moto finds the direct subclasses of its own class only.


class Alarm(Resource, CloudFormationModel):
    """Made by the call that has the same parameters as the resource has properties, checked against
    CloudWatch's model."""

    def __init__(self, name: str, properties: dict[str, Any]) -> None:
        super().__init__(name, properties)
        # CloudFormation takes a parameter, which is text, for a number where one is due.
        numbers = {"Threshold": float(properties["Threshold"])}
        boto3.client("cloudwatch", REGION).put_metric_alarm(
            AlarmName=name, **{**properties, **numbers}
        )

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::CloudWatch::Alarm"


class TopicPolicy(Resource, CloudFormationModel):
    """Kept."""

    @staticmethod
    def cloudformation_type() -> str:
        return "AWS::SNS::TopicPolicy"


def metrics_of(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics that an alarm of ``describe_alarms`` reads, with ``Namespace``, ``MetricName``,
    ``Dimensions``, ``Stat``, …"""
    queries = alarm.get("Metrics") or []
    if not queries:
        return [{"Id": "value", "Stat": alarm["Statistic"], "Period": alarm["Period"], **alarm}]
    return [
        {"Id": query["Id"], **query["MetricStat"], **query["MetricStat"]["Metric"]}
        for query in queries
        if "MetricStat" in query
    ]


def in_alarm(alarm: dict[str, Any], end: datetime) -> bool:
    """Whether the alarm's last periods before ``end`` say so, by CloudWatch's rule of M datapoints
    out of N."""
    periods = alarm["EvaluationPeriods"]
    values = _values(alarm, end - timedelta(minutes=periods), end)
    missing = alarm["TreatMissingData"] == "breaching"
    compare = COMPARISONS[alarm["ComparisonOperator"]]
    minutes = [end - timedelta(minutes=count) for count in range(1, periods + 1)]
    breaching = [
        compare(values[minute], alarm["Threshold"]) if minute in values else missing
        for minute in minutes
    ]
    return sum(breaching) >= alarm.get("DatapointsToAlarm", periods)


def _values(alarm: dict[str, Any], start: datetime, end: datetime) -> dict[datetime, float]:
    """What the alarm looks at, by minute."""
    series = {metric["Id"]: _statistics(metric, start, end) for metric in metrics_of(alarm)}
    expressions = [
        query["Expression"] for query in alarm.get("Metrics") or [] if query.get("Expression")
    ]
    if not expressions:
        return series["value"]
    (expression,) = expressions
    common = set.intersection(*(set(values) for values in series.values()))
    # Python reads the arithmetic of these expressions as CloudWatch does.
    return {
        minute: eval(expression, {}, {name: values[minute] for name, values in series.items()})
        for minute in common
    }


def _statistics(metric: dict[str, Any], start: datetime, end: datetime) -> dict[datetime, float]:
    client = boto3.client("cloudwatch", REGION)
    answer = client.get_metric_statistics(
        Namespace=metric["Namespace"],
        MetricName=metric["MetricName"],
        Dimensions=metric["Dimensions"],
        StartTime=start,
        EndTime=end,
        Period=metric["Period"],
        Statistics=[metric["Stat"]],
    )
    return {point["Timestamp"]: point[metric["Stat"]] for point in answer["Datapoints"]}
