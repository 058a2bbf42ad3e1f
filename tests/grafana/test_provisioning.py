"""Grafana finds the dashboards and the data source by its provisioning."""

from __future__ import annotations

import yaml

from tests.grafana.committed import GRAFANA, Json

#: The fields of Grafana's documentation on provisioning; it refuses nothing, and silently leaves
#: out what it does not know.
PROVIDER = {
    "name",
    "orgId",
    "folder",
    "folderUid",
    "type",
    "disableDeletion",
    "updateIntervalSeconds",
    "allowUiUpdates",
    "options",
}
SOURCE = {
    "name",
    "type",
    "access",
    "orgId",
    "uid",
    "url",
    "isDefault",
    "version",
    "editable",
    "jsonData",
    "secureJsonData",
}
OPTIONS = {"path", "foldersFromFilesStructure"}
SETTINGS = {
    "httpMethod",
    "timeInterval",
    "prometheusType",
    "prometheusVersion",
    "manageAlerts",
    "exemplarTraceIdDestinations",
}


def provisioned(kind: str, key: str) -> Json:
    content = yaml.safe_load((GRAFANA / "provisioning" / kind / "celery-memory.yaml").read_text())
    assert set(content) == {"apiVersion", key}
    assert content["apiVersion"] == 1
    (one,) = content[key]
    return one


def test_the_dashboards_are_provisioned() -> None:
    provider = provisioned("dashboards", "providers")
    assert set(provider) <= PROVIDER
    assert set(provider["options"]) <= OPTIONS
    assert provider["type"] == "file"
    assert not provider["allowUiUpdates"], "they cannot be edited, as they say themselves"


def test_the_data_source_is_provisioned() -> None:
    source = provisioned("datasources", "datasources")
    assert set(source) <= SOURCE
    assert set(source["jsonData"]) <= SETTINGS
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == "15s", (
        "as the README's scrape configuration has it"
    )
