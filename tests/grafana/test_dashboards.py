"""The dashboards as they are committed: what is in them, where it is, and that Grafana knows every
field of it."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from celery_memory_exporter.metrics.catalogue import BY_NAME
from celery_memory_exporter.metrics.families.family import Family
from grafana.generate.__main__ import DASHBOARDS, files
from grafana.generate.layout import COLUMNS, placed
from grafana.generate.panels import stat
from tests.conftest import IN_CI
from tests.grafana import linter
from tests.integration.conftest import need

ROOT = Path(__file__).parent.parent.parent
GRAFANA = ROOT / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
Json = dict[str, Any]
#: Where ``tests/prepare.sh models`` puts the official models, by release.
MODELS = ROOT / ".venvs" / "grafana"
RELEASES = ("10.4.0", "11.6.0", "12")
#: What every scrape and every client library has.
NOT_OURS = {
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "ALERTS",
}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dashboard(request: pytest.FixtureRequest) -> Json:
    content: Json = json.loads(request.param.read_text())
    return content


def test_what_is_committed_is_what_is_generated() -> None:
    expected = files()
    assert {
        f"{path.parent.name}/{path.name}" for path in [*FILES, *(GRAFANA / "rules").glob("*.yaml")]
    } == set(expected)
    for path, content in expected.items():
        assert (GRAFANA / path).read_text() == content, f"{path}: run `make grafana`"


@pytest.mark.parametrize("rule", linter.RULES, ids=lambda rule: rule.__name__)
def test_the_linter_has_nothing_to_say(dashboard: Json, rule: linter.Rule) -> None:
    assert list(rule(dashboard)) == []


def panel_of(dashboard: Json, kind: str = "timeseries") -> Json:
    found: Json = next(each for each in dashboard["panels"] if each["type"] == kind)
    return found


def set_expr(dashboard: Json, expression: str) -> None:
    panel_of(dashboard)["targets"][0]["expr"] = expression


SELECTOR = '{job=~"$job",instance=~"$instance"}'
BROKEN: dict[str, Callable[[Json], Any]] = {
    "template_datasource": lambda each: each["templating"]["list"].pop(0),
    "template_job": lambda each: linter.variables(each, "query")["job"].update(multi=False),
    "template_instance": lambda each: linter.variables(each, "query")["instance"].update(
        allValue=".*"
    ),
    "template_label_promql": lambda each: linter.variables(each, "query")["job"].update(
        query="label_values(up{, job)"
    ),
    "template_on_time_change_reload": lambda each: linter.variables(each, "query")["job"].update(
        refresh=1
    ),
    "panel_datasource": lambda each: panel_of(each)["datasource"].update(uid="P1809F7CD0C75ACF3"),
    "panel_title_description": lambda each: panel_of(each).update(description=""),
    "panel_units": lambda each: panel_of(each)["fieldConfig"]["defaults"].update(unit="megabytes"),
    "panel_no_targets": lambda each: panel_of(each).update(targets=[]),
    "target_logql": lambda each: panel_of(each)["targets"][0].update(
        datasource={"type": "loki", "uid": "x"}
    ),
    "target_logql_auto": lambda each: set_expr(each, "rate(x[$__auto])"),
    "target_promql": lambda each: set_expr(each, f"sum(rate(x{SELECTOR}[5m])"),
    "target_rate_interval": lambda each: set_expr(each, f"rate(x{SELECTOR}[5m])"),
    "target_job": lambda each: set_expr(each, 'x{job="$job",instance=~"$instance"}'),
    "target_instance": lambda each: set_expr(each, 'x{job=~"$job"}'),
    "target_counter_agg": lambda each: set_expr(each, f"celery_task_started_total{SELECTOR}"),
    "uneditable_dashboard": lambda each: each.update(editable=True),
}


@pytest.mark.parametrize("rule", linter.RULES, ids=lambda rule: rule.__name__)
def test_the_linter_sees_what_is_broken(rule: linter.Rule) -> None:
    broken = copy.deepcopy(json.loads(FILES[0].read_text()))
    BROKEN[rule.__name__](broken)
    assert len(list(rule(broken))) >= 1


def cells(panel: Json) -> set[tuple[int, int]]:
    at = panel["gridPos"]
    return set(
        itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
    )


def test_panels_do_not_overlap_and_stay_on_the_grid(dashboard: Json) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        assert not cells(panel) & taken, panel["title"]
        taken |= cells(panel)
    assert max(x for x, _ in taken) < COLUMNS
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)


def test_a_row_has_to_fill_the_grid() -> None:
    with pytest.raises(ValueError, match="the row of 'One' is 10 columns wide"):
        placed([(4, [(10, stat("One", "It is one.", "1", "none"))])])


def metrics_of(dashboard: Json) -> set[str]:
    expressions = [expression for _, expression in linter.targets(dashboard)]
    expressions += [each["expr"] for each in dashboard["annotations"]["list"] if "expr" in each]
    asked = [
        linter.QUERY.fullmatch(each["query"])
        for each in linter.variables(dashboard, "query").values()
    ]
    expressions += [match[2].rpartition(",")[0] for match in asked if match]
    return {
        str(selector.name)
        for expression in expressions
        for selector in linter.selectors(expression)
    }


def family_of(sample: str) -> Family | None:
    return next(
        (
            BY_NAME[base]
            for suffix in ("", "_bucket", "_sum", "_count")
            if (base := sample.removesuffix(suffix)) in BY_NAME
        ),
        None,
    )


def test_every_metric_is_in_the_catalogue(dashboard: Json) -> None:
    assert [name for name in metrics_of(dashboard) - NOT_OURS if family_of(name) is None] == []


def test_every_label_that_is_asked_for_is_one_of_the_metrics(dashboard: Json) -> None:
    of_the_target = {"cluster", "namespace", "job", "instance", "le"}
    for title, expression in linter.targets(dashboard):
        for selector in linter.selectors(expression):
            family = family_of(str(selector.name))
            asked = {matcher.name for matcher in selector.matchers.matchers}
            assert family is None or asked <= of_the_target | set(family.labels), (
                title,
                selector.name,
            )


#: The same nodename in two clusters, and at two brokers of one exporter.
PLACES = (
    {"cluster": "a", "broker": "eu"},
    {"cluster": "a", "broker": "us"},
    {"cluster": "b", "broker": "eu"},
)
#: Members of a group have several holders.
VALUES = {
    "process": ("main", "0", "1"),
    "holder": ("", "shop._cache"),
    "object_type": ("dict", "list"),
    "site": ("a.py:1", "b.py:2"),
    "reason": ("memory", "oom"),
}


def samples_of(family: Family) -> list[tuple[str, dict[str, str]]]:
    """Name and further labels of each of its samples."""
    buckets = (
        [(f"{family.name}_bucket", {"le": bound}) for bound in ("1", "+Inf")]
        if family.kind == "histogram"
        else []
    )
    plain = (
        [f"{family.name}_sum", f"{family.name}_count"]
        if family.kind in ("histogram", "summary")
        else [family.name]
    )
    return [*buckets, *((name, {}) for name in plain)]


def alike_in_several_places() -> list[str]:
    """Series of every family that differ by where they come from."""
    found = []
    for family, place in itertools.product(BY_NAME.values(), PLACES):
        where = {
            key: value
            for key, value in place.items()
            if key == "cluster" or not family.name.startswith("celery_memory_")
        }
        for values in itertools.product(*(VALUES.get(label, ("x",)) for label in family.labels)):
            labels = {
                "job": "celery",
                "instance": "e:9808",
                **where,
                **dict(zip(family.labels, values, strict=True)),
            }
            for name, more in samples_of(family):
                found.append(
                    name
                    + "{"
                    + ",".join(f'{key}="{value}"' for key, value in {**labels, **more}.items())
                    + "}"
                )
    return list(dict.fromkeys(found))


def filled(expression: str) -> str:
    """With everything chosen."""
    times = {"$__rate_interval": "2m", "$__range": "5m"}
    return re.sub(r"\$\w+", lambda match: times.get(match[0], ".*"), expression)


@pytest.mark.integration
def test_queries_join_what_belongs_together_where_targets_have_more_labels(
    dashboard: Json, tmp_path: Path
) -> None:
    # Whatever a query answers, if it is no error.
    whatever = {"eval_time": "10m", "exp_samples": [{"labels": "{}", "value": 0}]}
    asked = [
        {"expr": f"count({filled(expression)}) * 0 or vector(0)", **whatever}
        for _, expression in linter.targets(dashboard)
    ]
    series = [{"series": each, "values": "1+1x20"} for each in alike_in_several_places()]
    test = tmp_path / "test.yaml"
    test.write_text(
        yaml.safe_dump(
            {"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}]}
        )
    )
    done = subprocess.run(
        [need("promtool"), "test", "rules", str(test)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_are_found_under_fixed_names_and_lead_to_each_other() -> None:
    contents = [json.loads(path.read_text()) for path in FILES]
    assert [each["uid"] for each in contents] == [path.stem for path in FILES]
    assert all(len(each["uid"]) <= 40 for each in contents)
    for each in contents:
        (link,) = each["links"]
        assert link["includeVars"]
        assert link["keepTime"]
        assert all(set(link["tags"]) <= set(other["tags"]) for other in contents)
        assert [annotation["name"] for annotation in each["annotations"]["list"][1:]] == [
            "Worker restarts",
            "OOM kills",
            "Firing alerts",
        ]
    assert len(FILES) == len(DASHBOARDS)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the official models need Python 3.11")
@pytest.mark.parametrize("release", RELEASES)
def test_grafana_knows_every_field(release: str) -> None:
    if not (MODELS / release).is_dir():
        (pytest.fail if IN_CI else pytest.skip)(
            f"no model of Grafana {release}; tests/prepare.sh models fetches it"
        )
    command = [sys.executable, "-m", "tests.grafana.model", *map(str, FILES)]
    environment = {**os.environ, "PYTHONPATH": str(MODELS / release)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_model_sees_a_field_that_is_not_known() -> None:
    from tests.grafana.model import differences

    assert list(differences({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 3}]})) == [
        ".a[0].b is 3 instead of 1",
        ".a[0].c is not known",
    ]


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
