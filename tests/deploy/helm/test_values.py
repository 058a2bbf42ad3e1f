"""The Helm chart's values: what the schema knows, what is refused, and where the broker's URL
goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import yaml

from celery_memory_exporter.config.settings import Config
from tests.deploy.helm.chart import CHART, Rendered, helm, render, rendered, values

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
#: Mappings whose defaults are an example of what may stand there.
OPEN = (".config", ".resources")


def paths(found: object, schema: dict[str, Any], at: str = "") -> Iterator[str]:
    """The keys of values, down to where the schema leaves them open."""
    if isinstance(found, dict) and "properties" in schema:
        for key, value in found.items():
            yield from paths(value, schema["properties"].get(key, {}), f"{at}.{key}")
    else:
        yield at


def declared(schema: dict[str, Any], at: str = "") -> Iterator[str]:
    if "properties" in schema and at not in OPEN:
        for key, value in schema["properties"].items():
            yield from declared(value, f"{at}.{key}")
    else:
        yield at


def test_the_schema_and_the_defaults_name_the_same_values() -> None:
    schema = {
        **SCHEMA,
        "properties": {
            key: value for key, value in SCHEMA["properties"].items() if key != "global"
        },
    }
    assert set(declared(schema)) == set(
        paths({**DEFAULTS, **dict.fromkeys(("config", "resources"))}, schema)
    )


def test_config_takes_each_key_of_the_exporter_but_addresses() -> None:
    told = set(SCHEMA["properties"]["config"]["properties"])
    assert told == {field.name for field in fields(Config)} - {"brokers", "listen"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"mode": "job"}, "mode"),
        ({"imagetag": "1"}, "imagetag"),
        ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
        ({"port": "9808"}, "port"),
        ({"port": 80}, "port"),
        ({"config": {"broker": {"url": "redis://:secret@redis/0"}}}, "url"),
        ({"config": {"listen": {"address": ":1"}}}, "listen"),
        ({"config": {"worker_groups": [{"match": "x"}]}}, "name"),
        ({"fleet": {"broker": {"url": "redis"}}}, "url"),
        ({"fleet": {"broker": {"existingSecret": {"name": ""}}}}, "name"),
        ({"sidecar": {"broker": {"url": "redis://redis/0"}}}, "broker"),
        ({"monitor": {"interval": "often"}}, "interval"),
        ({"grafanaUrl": "grafana.shop.test"}, "grafanaUrl"),
        ({"networkPolicy": {"from": {"podSelector": {}}}}, "from"),
    ],
)
def test_wrong_values_are_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(helm.HelmValuesError, match=named):
        render(wrong)


# The broker


def broker(release: Rendered) -> dict[str, str] | None:
    environment = {each["name"]: each for each in release.container()["env"]}
    source = environment.get("CELERY_MEMORY_BROKER_URL")
    return source["valueFrom"]["secretKeyRef"] if source else None


def test_the_url_is_of_a_secret_that_you_made_and_the_notes_say_how() -> None:
    release = rendered("default")
    secret = broker(release)
    assert not release.all("Secret")
    assert (
        f"create secret generic {secret['name']} --from-literal={secret['key']}=" in release.notes
    )


def test_a_url_among_the_values_becomes_a_secret_and_stands_nowhere_else() -> None:
    release = rendered("everything")
    secret = release.one("Secret")
    assert broker(release) == {"name": secret["metadata"]["name"], "key": "url"}
    assert secret["stringData"]["url"] == values("everything")["fleet"]["broker"]["url"]
    assert (
        "secret@redis"
        not in json.dumps([each for each in release.objects if each is not secret]) + release.notes
    )


def test_another_url_or_configuration_restarts_the_pod() -> None:
    checksums = [
        render(each).pod()["metadata"]["annotations"]["checksum/config"]
        for each in (
            {},
            {"fleet": {"broker": {"url": "redis://a/0"}}},
            {"config": {"log": {"level": "debug"}}},
        )
    ]
    assert len(set(checksums)) == 3


def test_a_whole_configuration_as_a_secret() -> None:
    release = render({"configSecret": "brokers"})
    assert broker(release) is None
    assert not release.all("ConfigMap")
    assert release.pod()["spec"]["volumes"][0]["secret"] == {"secretName": "brokers"}


@pytest.mark.parametrize("case", ["sidecar", "daemonset"])
def test_many_exporters_do_not_count_one_broker_many_times(case: str) -> None:
    assert broker(rendered(case)) is None
