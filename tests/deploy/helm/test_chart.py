"""The Helm chart: what it makes is valid, and its parts fit one another, the exporter, dashboards
and rules."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from celery_memory_exporter import __version__
from celery_memory_exporter.config.checks import split_address
from celery_memory_exporter.config.loading import load
from celery_memory_exporter.config.settings import Listen
from celery_memory_exporter.metrics.catalogue import FAMILIES
from tests.deploy.helm.chart import (
    CASES,
    CHART,
    ROOT,
    WORKER,
    generate,
    helm,
    parse,
    patched,
    render,
    rendered,
    values,
)
from tests.deploy.helm.schemas import Invalid, check, versions

DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
RULES = sorted((ROOT / "grafana" / "rules").glob("*.yaml"))
MODES = ("default", "sidecar", "daemonset")


@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing_but_the_missing_icon(case: str) -> None:
    told = helm.lint(CHART, values(case), strict=True)
    assert told["errors"] == []
    assert [each["error"] for each in told["messages"]] == ["icon is recommended"]


def test_the_chart_is_of_the_package() -> None:
    with helm.Chart.load(CHART) as chart:
        assert chart.metadata["appVersion"] == __version__


def test_the_archive_holds_what_the_links_point_to(tmp_path: Path) -> None:
    with helm.Chart.load(helm.package(CHART, destination=tmp_path)) as chart:
        names = {each["name"] for each in chart.files}
        assert {f"files/dashboards/{path.name}" for path in DASHBOARDS} <= names
        assert not [name for name in names if name.startswith("ci/")]
        texts = chart.render(values("everything"), name=generate.RELEASE)
    assert (
        parse({Path(name).name: text for name, text in texts.items()}).objects
        == rendered("everything").objects
    )


@pytest.mark.parametrize("case", CASES)
def test_every_object_is_valid(case: str) -> None:
    for each in rendered(case).objects:
        check(each)


def test_an_object_that_is_not_valid_is_noticed() -> None:
    deployment = copy.deepcopy(rendered("default").one("Deployment"))
    deployment["spec"]["template"]["spec"]["hostPid"] = True
    monitor = copy.deepcopy(rendered("everything").one("ServiceMonitor"))
    monitor["spec"]["endpoints"][0]["every"] = "30s"
    for wrong in (deployment, monitor):
        with pytest.raises(Invalid):
            check(wrong)


def test_the_oldest_kubernetes_has_native_sidecars() -> None:
    assert versions()[0] == "1.29"


# The pod


@pytest.mark.parametrize("case", CASES)
def test_what_is_mounted_is_there(case: str) -> None:
    release = rendered(case)
    volumes = {each["name"]: each for each in release.pod()["spec"]["volumes"]}
    mounts = {
        each["mountPath"]: volumes[each["name"]] for each in release.container()["volumeMounts"]
    }
    path = Path(release.container()["command"][-1])
    config_map = release.one("ConfigMap", mounts[str(path.parent)]["configMap"]["name"])
    assert path.name in config_map["data"]


@pytest.mark.parametrize("case", CASES)
def test_the_exporter_accepts_its_configuration(case: str, tmp_path: Path) -> None:
    release = rendered(case)
    file = tmp_path / "config.yaml"
    file.write_text(release.all("ConfigMap")[0]["data"]["config.yaml"])
    settings = load(file, {})
    assert bool(settings.worker_groups) == (case == "everything")


@pytest.mark.parametrize("case", CASES)
def test_one_port_everywhere(case: str) -> None:
    release = rendered(case)
    (port,) = release.container()["ports"]
    environment = {each["name"]: each.get("value") for each in release.container()["env"]}
    assert split_address(environment["CELERY_MEMORY_LISTEN_ADDRESS"]) == ("", port["containerPort"])
    assert {
        probe["httpGet"]["port"]
        for name, probe in release.container().items()
        if name.endswith("Probe")
    } == {port["name"]}
    for service in release.all("Service"):
        (exposed,) = service["spec"]["ports"]
        assert (exposed["port"], exposed["targetPort"], exposed["name"]) == (
            port["containerPort"],
            port["name"],
            "metrics",
        )
    for policy in release.all("NetworkPolicy"):
        (ingress,) = policy["spec"]["ingress"]
        assert ingress["ports"] == [{"port": port["containerPort"]}]
    for monitor in [*release.all("ServiceMonitor"), *release.all("PodMonitor")]:
        (endpoint,) = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
        assert (endpoint["port"], endpoint["path"]) == (port["name"], "/metrics")


def test_the_port_is_the_exporters_own_by_default() -> None:
    assert (
        rendered("default").container()["ports"][0]["containerPort"]
        == split_address(Listen().address)[1]
    )


@pytest.mark.parametrize("case", CASES)
def test_selectors_select_the_exporters_pod(case: str) -> None:
    release = rendered(case)
    labels = release.pod()["metadata"]["labels"].items()
    for each in [*release.all("Deployment"), *release.all("DaemonSet"), *release.all("PodMonitor")]:
        assert each["spec"]["selector"]["matchLabels"].items() <= labels
    for each in release.all("NetworkPolicy"):
        assert each["spec"]["podSelector"]["matchLabels"].items() <= labels
    for each in release.all("Service"):
        assert each["spec"]["selector"].items() <= labels
    for each in release.all("ServiceMonitor"):
        assert (
            each["spec"]["selector"]["matchLabels"].items()
            <= release.one("Service")["metadata"]["labels"].items()
        )


@pytest.mark.parametrize("case", ["default", "sidecar", "everything"])
def test_the_pod_keeps_to_the_restricted_standard(case: str) -> None:
    """Kubernetes' Pod Security Standards, level restricted."""
    spec, container = rendered(case).pod()["spec"], rendered(case).container()
    context = {**spec["securityContext"], **container["securityContext"]}
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    assert not {"hostPID", "hostNetwork", "hostIPC"} & set(spec)


def test_the_daemonset_has_one_right_beyond_and_no_more() -> None:
    spec, container = rendered("daemonset").pod()["spec"], rendered("daemonset").container()
    assert spec["hostPID"] is True
    # As another user it would have no capability at all: Kubernetes sets no ambient ones.
    assert spec["securityContext"]["runAsUser"] == 0
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["SYS_PTRACE"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


@pytest.mark.parametrize("case", ["default", "daemonset", "everything"])
def test_no_token_of_the_service_account(case: str) -> None:
    release = rendered(case)
    assert release.pod()["spec"]["automountServiceAccountToken"] is False
    assert release.one("ServiceAccount")["automountServiceAccountToken"] is False
    assert (
        release.pod()["spec"]["serviceAccountName"]
        == release.one("ServiceAccount")["metadata"]["name"]
    )


def test_a_service_account_of_your_own() -> None:
    release = render({"serviceAccount": {"create": False, "name": "monitoring"}})
    assert not release.all("ServiceAccount")
    assert release.pod()["spec"]["serviceAccountName"] == "monitoring"


# The sidecar


def test_the_patch_adds_a_native_sidecar_and_leaves_the_worker_alone() -> None:
    workload = patched(WORKER, rendered("sidecar"))
    check(workload)
    spec, before = workload["spec"]["template"]["spec"], WORKER["spec"]["template"]["spec"]
    assert spec["shareProcessNamespace"] is True
    assert spec["containers"] == before["containers"]
    assert [each["name"] for each in spec["initContainers"]] == [
        "celery-memory-exporter",
        "migrate",
    ]
    assert spec["initContainers"][0]["restartPolicy"] == "Always"
    assert spec["volumes"][1:] == before["volumes"]
    assert (
        workload["spec"]["selector"]["matchLabels"].items()
        <= workload["spec"]["template"]["metadata"]["labels"].items()
    )


def test_the_sidecar_is_the_workers_user() -> None:
    """What is read of a process beside status needs its user, and no capability that the reader
    lacks."""
    assert "runAsUser" not in rendered("sidecar").container()["securityContext"]
    worker = WORKER["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert (
        rendered("sidecar").container()["securityContext"]["capabilities"] == worker["capabilities"]
    )


# What watches


@pytest.mark.parametrize("case", MODES)
def test_no_label_of_a_target_hides_one_of_the_exporter(case: str) -> None:
    release = render({**values(case), "monitor": {"enabled": True}})
    monitor = (release.all("ServiceMonitor") or release.all("PodMonitor"))[0]
    (endpoint,) = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
    (dropped,) = [
        each["regex"] for each in endpoint["relabelings"] if each.get("action") == "labeldrop"
    ]
    target = {"namespace", "service", "pod", "container", "endpoint", "job", "instance", "node"}
    left = {label for label in target if not re.fullmatch(dropped, label)}
    assert not left & {label for family in FAMILIES for label in family.labels}
    assert {"job", "instance", "namespace"} <= left
    assert {"job", "instance"} <= {each.get("targetLabel") for each in endpoint["relabelings"]}


def test_the_dashboards_are_the_projects() -> None:
    found = {}
    for each in rendered("everything").all("ConfigMap"):
        if each["metadata"]["labels"].get("grafana_dashboard") == "1":
            found |= each["data"]
    assert found == {path.name: path.read_text() for path in DASHBOARDS}
    assert len(found) == 5


def test_the_rules_are_the_projects_with_your_links() -> None:
    given = values("everything")
    texts = [
        path.read_text()
        .replace("https://grafana.example.com", given["grafanaUrl"].rstrip("/"))
        .replace("https://runbooks.example.com/celery", given["runbookUrl"].rstrip("/"))
        for path in RULES
    ]
    groups = [group for text in texts for group in yaml.safe_load(text)["groups"]]
    assert len(groups) == len(RULES) == 2
    assert rendered("everything").one("PrometheusRule")["spec"]["groups"] == groups
    assert "example.com" not in json.dumps(groups)


def test_alerts_without_your_links_have_none() -> None:
    groups = render({"prometheusRule": {"enabled": True}}).one("PrometheusRule")["spec"]["groups"]
    annotations = [
        set(rule["annotations"]) for group in groups for rule in group["rules"] if "alert" in rule
    ]
    assert annotations
    assert not set.union(*annotations) & {"dashboard_url", "runbook_url"}
    assert "example.com" not in json.dumps(groups)


def test_nothing_watches_unless_asked() -> None:
    kinds = {each["kind"] for each in rendered("default").objects}
    assert kinds == {"ConfigMap", "Deployment", "Service", "ServiceAccount"}


# The plain manifests


def test_the_plain_manifests_are_what_the_chart_renders() -> None:
    """``python -m deploy.kubernetes.generate`` after a wanted change."""
    folder = ROOT / "deploy" / "kubernetes"
    assert {
        str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.yaml")
    } == generate.files()


def test_each_plain_manifest_is_valid() -> None:
    for path, text in generate.files().items():
        assert "helm.sh" not in text
        for each in yaml.safe_load_all(text):
            if not path.endswith("patch.yaml"):
                check(each)
