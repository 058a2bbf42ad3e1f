"""The task definition, against ECS' own model and against what the exporter and the CloudWatch
agent expect."""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
from botocore.validate import ParamValidator
from cfnlint.api import lint

from celery_memory_exporter.config.arguments import build_parser
from celery_memory_exporter.config.loading import ENVIRONMENT
from celery_memory_exporter.config.settings import Config
from tests.deploy.aws.cloud import REGION
from tests.deploy.aws.conftest import DEPLOY, emf_of, on_ecs
from tests.deploy.aws.skips import skips
from tests.integration.exporter import Exporter
from tests.integration.programs import free_port

TASK = json.loads((DEPLOY / "task-definition.json").read_text())
WORKER, EXPORTER = TASK["containerDefinitions"]


def as_template(value: Any, *, keys: bool = True) -> Any:
    """With CloudFormation's spelling; what the user names (labels, log options) stays."""
    if isinstance(value, list):
        return [as_template(each) for each in value]
    if not isinstance(value, dict):
        return value
    named = ("dockerLabels", "options")
    return {
        (key[0].upper() + key[1:] if keys else key): as_template(each, keys=key not in named)
        for key, each in value.items()
    }


def test_the_task_definition_has_the_shape_that_ecs_takes() -> None:
    shape = (
        boto3.client("ecs", REGION)
        .meta.service_model.operation_model("RegisterTaskDefinition")
        .input_shape
    )
    assert ParamValidator().validate(TASK, shape).generate_report() == ""
    unknown = {**TASK, "containerDefinitions": [{**WORKER, "readOnlyRootFilesystem": True}]}
    assert "readOnlyRootFilesystem" in ParamValidator().validate(unknown, shape).generate_report()


def test_the_task_definition_has_values_that_ecs_takes() -> None:
    resource = {"Type": "AWS::ECS::TaskDefinition", "Properties": as_template(TASK)}
    assert lint(json.dumps({"Resources": {"Task": resource}})) == []
    resource["Properties"]["PidMode"] = "shared"
    assert [match.rule.id for match in lint(json.dumps({"Resources": {"Task": resource}}))] == [
        "E3030"
    ]


def test_ecs_registers_it() -> None:
    registered = boto3.client("ecs", REGION).register_task_definition(**TASK)["taskDefinition"]
    assert registered["status"] == "ACTIVE"
    assert registered["pidMode"] == "task"


def test_the_exporter_can_see_the_worker_and_cannot_harm_it() -> None:
    assert TASK["pidMode"] == "task"
    assert EXPORTER["user"] == WORKER["user"], "PSS and USS are for the same user's eyes"
    assert EXPORTER["user"].split(":")[0] not in ("0", "root")
    assert EXPORTER["essential"] is False
    assert EXPORTER["readonlyRootFilesystem"] is True
    assert EXPORTER["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
    assert "privileged" not in EXPORTER
    assert "dependsOn" not in WORKER


def test_the_worker_has_a_limit_of_its_own_which_its_agent_can_tell() -> None:
    """The task's limit is on a cgroup that no container sees."""
    assert WORKER["memory"] + EXPORTER["memory"] <= int(TASK["memory"])


def test_the_worker_turns_the_agent_on_and_has_a_name_that_lasts() -> None:
    words = WORKER["command"]
    assert importlib.util.find_spec(words[words.index("-I") + 1]) is not None
    assert words[words.index("-n") + 1] == "shop@%h"


def test_the_exporters_command_is_ours_whatever_the_images_entry_point_is() -> None:
    """``command`` alone would be arguments of the image's own entry point, which is the same
    program."""
    assert EXPORTER["entryPoint"] == ["celery-memory-exporter"]
    assert build_parser().parse_args(EXPORTER["command"]).command == "serve"


def test_the_secrets_are_variables_that_the_exporter_reads_and_that_its_role_may_read() -> None:
    assert {each["name"] for each in EXPORTER["secrets"]} <= ENVIRONMENT.keys()
    policy = json.loads((DEPLOY / "iam" / "execution-role.json").read_text())
    (allowed,) = [
        each["Resource"] for each in policy["Statement"] if each["Action"] == "ssm:GetParameters"
    ]
    secrets = [
        each["valueFrom"] for container in (WORKER, EXPORTER) for each in container["secrets"]
    ]
    assert all(fnmatch.fnmatch(arn, allowed) for arn in secrets)


def test_the_agent_finds_the_exporter_by_its_docker_labels() -> None:
    labels = EXPORTER["dockerLabels"]
    config, _ = on_ecs()
    discovery = config["logs"]["metrics_collected"]["prometheus"]["ecs_service_discovery"][
        "docker_label"
    ]
    found = {key: labels[label] for key, label in discovery.items()}
    port = Config().listen.address.rpartition(":")[2]
    assert (found["sd_port_label"], found["sd_metrics_path_label"]) == (port, "/metrics")
    assert [each["containerPort"] for each in EXPORTER["portMappings"]] == [int(port)]
    assert skips(emf_of(config), found["sd_job_name_label"]) == []


def test_the_health_check_tells_an_exporter_that_answers_from_none(tmp_path: Path) -> None:
    port = free_port()
    kind, program, *arguments = [
        each.replace("9808", str(port)) for each in EXPORTER["healthCheck"]["command"]
    ]
    assert (kind, program) == ("CMD", "python")

    def healthy() -> bool:
        return (
            subprocess.run(
                [sys.executable, *arguments], check=False, capture_output=True
            ).returncode
            == 0
        )

    assert not healthy()
    exporter = Exporter(tmp_path / "log", None, port=port)
    exporter.start()
    try:
        assert healthy()
    finally:
        exporter.ensure_stopped()
