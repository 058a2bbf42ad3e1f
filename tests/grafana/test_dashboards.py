"""The dashboards as they are committed: what is in them, where it is, and that Grafana knows every
field of it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import pytest

from grafana.generate.layout import COLUMNS
from tests.conftest import IN_CI
from tests.grafana import linter
from tests.grafana.committed import DASHBOARDS, ROOT, TARGET_LABELS, Json, family_of

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


@pytest.mark.parametrize("rule", linter.RULES, ids=lambda rule: rule.__name__)
def test_the_linter_has_nothing_to_say(dashboard: Json, rule: linter.Rule) -> None:
    assert list(rule(dashboard)) == []


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


def test_every_metric_is_in_the_catalogue(dashboard: Json) -> None:
    assert [name for name in metrics_of(dashboard) - NOT_OURS if family_of(name) is None] == []


def test_every_label_that_is_asked_for_is_one_of_the_metrics(dashboard: Json) -> None:
    for title, expression in linter.targets(dashboard):
        for selector in linter.selectors(expression):
            family = family_of(str(selector.name))
            asked = {matcher.name for matcher in selector.matchers.matchers}
            assert family is None or asked <= TARGET_LABELS | {"le"} | set(family.labels), (
                title,
                selector.name,
            )


def test_dashboards_are_found_under_fixed_names_and_lead_to_each_other() -> None:
    contents = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert [each["uid"] for each in contents] == [path.stem for path in DASHBOARDS]
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


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the official models need Python 3.11")
@pytest.mark.parametrize("release", RELEASES)
def test_grafana_knows_every_field(release: str) -> None:
    if not (MODELS / release).is_dir():
        (pytest.fail if IN_CI else pytest.skip)(
            f"no model of Grafana {release}; tests/prepare.sh models fetches it"
        )
    command = [sys.executable, "-m", "tests.grafana.model", *map(str, DASHBOARDS)]
    environment = {**os.environ, "PYTHONPATH": str(MODELS / release)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
