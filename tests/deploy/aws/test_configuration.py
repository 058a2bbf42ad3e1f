"""The agent's configurations, the policies and Elastic Beanstalk's files: what is skipped without a
word is told here."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cfnlint.api import lint, lint_file

from celery_memory_exporter.cli import main
from tests.deploy.aws.conftest import DEPLOY, emf_of, extension, job_of, on_beanstalk, on_ecs
from tests.deploy.aws.skips import skips
from tests.integration.programs import need

JOB = "celery-memory-exporter"
PROCFILE = (DEPLOY / "beanstalk" / "Procfile").read_text()
#: The largest value of a parameter in the Parameter Store's standard tier.
PARAMETER_BYTES = 4096
#: How long the agent remembers a counter that it does not see.
COUNTER_SECONDS = 300


def closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }


TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "array", "minItems": 1, "items": TEXT}
LABELS = {"sd_port_label": TEXT, "sd_metrics_path_label": TEXT, "sd_job_name_label": TEXT}
DISCOVERY = closed(
    {
        "sd_frequency": {"type": "string", "pattern": "^[0-9]+(s|m|h)$"},
        "sd_result_file": TEXT,
        "sd_target_cluster": TEXT,
        "sd_cluster_region": TEXT,
        "docker_label": closed(LABELS),
    }
)
DECLARATION = closed(
    {
        "source_labels": TEXTS,
        "label_matcher": TEXT,
        "label_separator": TEXT,
        "metric_selectors": TEXTS,
        "dimensions": {
            "type": "array",
            "minItems": 1,
            "items": {**TEXTS, "maxItems": 30, "uniqueItems": True},
        },
    },
    "dimensions",
)
EMF = closed(
    {
        "metric_namespace": TEXT,
        "metric_declaration_dedup": {"type": "boolean"},
        "metric_unit": {"type": "object", "additionalProperties": TEXT},
        "metric_declaration": {"type": "array", "minItems": 1, "items": DECLARATION},
    },
    "metric_declaration",
)
PROMETHEUS = closed(
    {
        "cluster_name": TEXT,
        "log_group_name": TEXT,
        "prometheus_config_path": TEXT,
        "ecs_service_discovery": DISCOVERY,
        "emf_processor": EMF,
    },
    "prometheus_config_path",
    "emf_processor",
)
#: Our own schema of the part that we use, as strict as the agent's, which comes with its sources
#: alone.
SCHEMA = closed(
    {
        "logs": closed(
            {
                "metrics_collected": closed({"prometheus": PROMETHEUS}),
                "force_flush_interval": {"type": "integer"},
            },
            "metrics_collected",
        )
    },
    "logs",
)


@pytest.mark.parametrize("configured", [on_ecs, on_beanstalk])
def test_the_configuration_has_the_keys_that_the_agent_knows(configured: Any) -> None:
    config, _ = configured()
    jsonschema.Draft202012Validator(SCHEMA).validate(config)
    config["logs"]["metrics_collected"]["prometheus"]["emf_processor"]["declarations"] = []
    with pytest.raises(jsonschema.ValidationError, match="declarations"):
        jsonschema.Draft202012Validator(SCHEMA).validate(config)


@pytest.mark.parametrize("configured", [on_ecs, on_beanstalk])
def test_nothing_of_the_configuration_is_skipped(configured: Any) -> None:
    assert skips(emf_of(configured()[0]), JOB) == []


def drop(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda declaration: declaration.pop(key)


def put(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda declaration: declaration.update(values)


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        (drop("source_labels"), "a declaration without source_labels is skipped"),
        (drop("metric_selectors"), "a declaration without metric_selectors is skipped"),
        (
            put(label_matcher="^celery$"),
            "label_matcher ^celery$ does not match the job celery-memory-exporter",
        ),
        (
            put(metric_selectors=["^celery_leak_suspects$"]),
            "^celery_leak_suspects$ selects nothing",
        ),
        (
            put(metric_selectors=["^celery_task_runtime$"]),
            "celery_task_runtime is a histogram, which the agent drops or takes for something else",
        ),
        (
            put(dimensions=[["ClusterName", "task"]]),
            "celery_leak_suspect has no label task: the dimension set is skipped",
        ),
        (
            put(dimensions=[["ClusterName", "worker"]]),
            "worker has values without bound, and each is a metric to pay for",
        ),
    ],
)
def test_a_mistake_that_the_agent_does_not_tell_is_told_here(
    mistake: Callable[[dict[str, Any]], Any], told: str
) -> None:
    emf = copy.deepcopy(emf_of(on_ecs()[0]))
    mistake(emf["metric_declaration"][0])
    assert told in skips(emf, JOB)


def test_a_unit_for_what_is_not_declared_is_told() -> None:
    emf = {
        **emf_of(on_ecs()[0]),
        "metric_unit": {"celery_worker_up": "Count", "celery_queue_length": "Messages"},
    }
    assert skips(emf, JOB) == [
        "metric_unit: celery_worker_up is not declared",
        "metric_unit: Messages is no unit of CloudWatch",
    ]


@pytest.mark.parametrize("configured", [on_ecs, on_beanstalk])
def test_prometheus_takes_the_scrape_configuration(configured: Any, tmp_path: Path) -> None:
    promtool = need("promtool")
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(configured()[1]))
    checked = subprocess.run(
        [promtool, "check", "config", str(file)], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("configured", [on_ecs, on_beanstalk])
def test_a_counter_is_scraped_before_the_agent_forgets_it(configured: Any) -> None:
    interval = configured()[1]["global"]["scrape_interval"]
    assert interval.endswith("m")
    assert int(interval[:-1]) * 60 < COUNTER_SECONDS


def test_discovery_writes_the_file_that_prometheus_reads() -> None:
    config, scrape = on_ecs()
    result = config["logs"]["metrics_collected"]["prometheus"]["ecs_service_discovery"][
        "sd_result_file"
    ]
    assert job_of(scrape)["file_sd_configs"] == [{"files": [result]}]


@pytest.mark.parametrize("name", ["cloudwatch-agent.json", "prometheus.yaml"])
def test_a_configuration_fits_into_a_standard_parameter(name: str) -> None:
    assert (DEPLOY / name).stat().st_size <= PARAMETER_BYTES


@pytest.mark.parametrize("name", ["alarms.yaml", "scaling.yaml"])
def test_cfn_lint_has_nothing_to_say_of_the_template(name: str) -> None:
    assert lint_file(DEPLOY / name) == []


@pytest.mark.parametrize("name", ["exporter-sqs.json", "execution-role.json"])
def test_a_policy_has_actions_and_resources_that_iam_knows(name: str) -> None:
    policy = json.loads((DEPLOY / "iam" / name).read_text())
    resource = {"Type": "AWS::IAM::ManagedPolicy", "Properties": {"PolicyDocument": policy}}
    assert lint(json.dumps({"Resources": {"Policy": resource}})) == []
    policy["Statement"][0]["Action"] = "sqs:ListQueue"
    assert [match.rule.id for match in lint(json.dumps({"Resources": {"Policy": resource}}))] == [
        "W3037"
    ]


def test_beanstalk_declares_the_same_metrics_as_ecs() -> None:
    assert emf_of(on_beanstalk()[0]) == emf_of(on_ecs()[0])
    assert (
        job_of(on_beanstalk()[1])["metric_relabel_configs"]
        == job_of(on_ecs()[1])["metric_relabel_configs"]
    )


def test_beanstalk_names_what_the_agent_cannot_know_on_an_instance() -> None:
    config, scrape = on_beanstalk()
    prometheus = config["logs"]["metrics_collected"]["prometheus"]
    assert (prometheus["cluster_name"], prometheus["log_group_name"]) == (
        "shop-prod",
        "/aws/elasticbeanstalk/shop-prod/celery-memory",
    )
    assert prometheus["prometheus_config_path"] in extension()["files"]
    assert job_of(scrape)["job_name"] == JOB


def test_beanstalk_runs_the_worker_with_the_agent_and_the_exporter_where_it_is_scraped() -> None:
    processes = dict(line.split(": ", 1) for line in PROCFILE.splitlines())
    assert next(iter(processes)) == "web", "the platform wants it first"
    assert "-n shop@%h" in processes["worker"]
    assert processes["worker"].endswith(" -I celery_memory_exporter.autoload")
    command, serve, option, address = processes["exporter"].split()
    assert (command, serve, option) == (JOB, "serve", "--listen-address")
    assert job_of(on_beanstalk()[1])["static_configs"] == [{"targets": [address]}]


def test_beanstalk_gives_the_exporter_its_broker_as_a_secret() -> None:
    secrets = extension()["option_settings"]["aws:elasticbeanstalk:application:environmentsecrets"]
    assert secrets["CELERY_MEMORY_BROKER_URL"] == secrets["CELERY_BROKER_URL"]


def test_beanstalk_starts_the_agent_with_the_file_that_it_writes() -> None:
    commands = extension()["container_commands"]
    assert commands["02_scrape"]["command"].rpartition("file:")[2] in extension()["files"]


def test_the_exporter_takes_the_configuration_for_sqs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(DEPLOY / "exporter.sqs.yaml")]) == 0
    assert "events at rediss://events.shop.cache.amazonaws.com:6379/0" in capsys.readouterr().out
