"""What deploy/systemd and deploy/docker say holds: by the programs that read it, and by the code
that it names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_memory_exporter.agent.settings import PREFIX
from celery_memory_exporter.agent.settings import Settings as AgentSettings
from celery_memory_exporter.config.arguments import build_parser
from celery_memory_exporter.config.loading import ENVIRONMENT
from celery_memory_exporter.config.settings import Listen
from tests.conftest import IN_CI
from tests.deploy import systemd_unit
from tests.integration.programs import ROOT, need

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there

DOCKER = ROOT / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
PORT = Listen().address.rpartition(":")[2]
SCRIPTS = Path(sys.executable).parent
DROP_INS = ["shared-memory", "workers-user", "credential"]
#: With how much exposure, in tenths, ``systemd-analyze security`` is content. The unit has 16.
EXPOSURE = 20


def scripted(tmp_path: Path, *drop_ins: str) -> Path:
    """The unit and its drop-ins as one file whose command is there, which ``verify`` asks for."""
    files = [systemd_unit.UNIT, *map(systemd_unit.drop_in, drop_ins)]
    text = "\n".join(file.read_text() for file in files).replace(
        "/opt/celery-memory-exporter/bin/celery-memory-exporter", "/bin/true"
    )
    unit = tmp_path / systemd_unit.UNIT.name
    unit.write_text(text)
    return unit


@pytest.mark.parametrize("drop_ins", [[], *([each] for each in DROP_INS)], ids=str)
def test_systemd_understands_each_directive(tmp_path: Path, drop_ins: list[str]) -> None:
    command = [
        need("systemd-analyze"),
        "verify",
        "--recursive-errors=no",
        str(scripted(tmp_path, *drop_ins)),
    ]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@pytest.mark.parametrize("drop_ins", [[], *([each] for each in DROP_INS)], ids=str)
def test_the_unit_is_hardened(tmp_path: Path, drop_ins: list[str]) -> None:
    analyze = [need("systemd-analyze"), "security", "--offline=true", f"--threshold={EXPOSURE}"]
    judged = subprocess.run(
        [*analyze, str(scripted(tmp_path, *drop_ins))], capture_output=True, text=True, check=False
    )
    assert judged.returncode == 0, judged.stdout[-200:] + judged.stderr


def test_nothing_in_the_unit_hides_what_the_exporter_reads() -> None:
    service = systemd_unit.read(systemd_unit.UNIT)["Service"]
    shown = {name: service[name] for name in ("ProtectProc", "ProcSubset", "PrivateUsers")}
    assert shown == {"ProtectProc": ["default"], "ProcSubset": ["all"], "PrivateUsers": ["no"]}
    assert "PrivatePIDs" not in service


@pytest.mark.parametrize("drop_ins", [[], *([each] for each in DROP_INS)], ids=str)
def test_the_units_command_is_one_of_ours(drop_ins: list[str]) -> None:
    (command,) = systemd_unit.read(systemd_unit.UNIT, *map(systemd_unit.drop_in, drop_ins))[
        "Service"
    ]["ExecStart"]
    program, *arguments = shlex.split(command)
    assert Path(program).name == "celery-memory-exporter"
    assert build_parser().parse_args(arguments).command == "serve"


def test_every_environment_variable_that_is_named_exists() -> None:
    known = {
        *ENVIRONMENT,
        *(f"{PREFIX}{name.upper()}" for name in AgentSettings.__dataclass_fields__),
    }
    folders = (systemd_unit.SYSTEMD, DOCKER)
    texts = [
        file.read_text()
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    ]
    named = {name for text in texts for name in re.findall(r"\bCELERY_MEMORY_[A-Z_]+\b", text)}
    assert named <= known
    assert "CELERY_MEMORY_BROKER_URL" in named


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = need(str(SCRIPTS / "hadolint"), "hadolint")
    found = subprocess.run(
        [hadolint, str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_the_image_runs_as_nobody_in_particular_at_the_codes_port() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE) == [PORT]
    assert f"('127.0.0.1', {PORT}," in DOCKERFILE
    entry, command = (
        json.loads(each)
        for each in re.findall(r"^(?:ENTRYPOINT|CMD) (.+)$", DOCKERFILE, re.MULTILINE)
    )
    assert entry == ["celery-memory-exporter"]
    assert build_parser().parse_args(command).command == "serve"


def test_what_the_dockerfile_copies_is_there_and_not_ignored() -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    sources = [
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert set(sources) == allowed
    assert all((ROOT / source).exists() for source in sources)


def test_the_dockerfile_copies_what_the_wheel_is_made_of() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = settings["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {
        "pyproject.toml",
        settings["project"]["readme"],
        *wheel["packages"],
        *wheel["force-include"],
    }
    copied = [
        line.split()[:-1] for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    ]
    sources = {Path(source) for line in copied for source in line}
    assert {each for each in needed if not sources & {Path(each), *Path(each).parents}} == set()


def test_every_image_is_pinned_to_a_version() -> None:
    (built,) = [each["image"] for each in SERVICES.values() if "build" in each]
    images = [each["image"] for each in SERVICES.values() if each["image"] != built]
    images += re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.MULTILINE)
    assert len(images) == 5
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+(-[a-z]+)*$", image), image


def test_the_compose_file_is_valid() -> None:
    try:
        import compose_spec
    except ImportError:
        if IN_CI:
            raise
        pytest.skip("compose-spec is not installed: pip install '.[deploy]'")
    compose = compose_spec.PyCompose.from_yaml(
        yaml.safe_dump(COMPOSE)
    )  # which knows no YAML merge keys
    compose.validate()
    with pytest.raises(ValueError, match="mem_limits"):
        compose_spec.PyCompose.from_yaml(
            yaml.safe_dump({"services": {"a": {"image": "b", "mem_limits": "1g"}}})
        )


def test_every_file_that_is_mounted_or_built_exists() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (DOCKER / source).exists(), f"{name}: {source}"
        if "build" in service:
            assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_every_port_is_published_on_loopback_only_and_the_exporters_is_the_codes() -> None:
    assert SERVICES["exporter"]["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert all(
        port.startswith("127.0.0.1:")
        for service in SERVICES.values()
        for port in service.get("ports", [])
    )


def test_prometheus_reads_its_configuration_and_names_services_of_the_stack() -> None:
    file = DOCKER / "prometheus.yaml"
    subprocess.run(
        [need("promtool"), "check", "config", "--syntax-only", str(file)],
        check=True,
        capture_output=True,
    )
    settings = yaml.safe_load(file.read_text())
    (exporter,) = settings["scrape_configs"][0]["static_configs"][0]["targets"]
    (alertmanager,) = settings["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert exporter == f"exporter:{PORT}"
    assert alertmanager.partition(":")[0] in SERVICES
