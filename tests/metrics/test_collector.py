"""Snapshot -> exposition. The golden file holds it all for one fixed fleet; `make golden` rewrites
it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from celery_memory_exporter.fleet.facts import QueueReading
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.metrics.catalogue import BY_NAME
from celery_memory_exporter.metrics.collector import FleetCollector, by_broker
from tests import samples
from tests.conftest import IN_CI
from tests.metrics.golden_fleet import fixed_fleet, registry

GOLDEN = Path(__file__).parent.parent / "data" / "golden.txt"
#: Names that are danihodovic/celery-exporter's, against the rule that only histograms and summaries
#: have a count.
DROP_IN_COUNTS = (
    "celery_active_consumer_count",
    "celery_active_process_count",
    "celery_active_worker_count",
)


@pytest.fixture(scope="module")
def exposition() -> str:
    return generate_latest(registry()).decode()


def test_golden_exposition(exposition: str) -> None:
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(exposition)
    assert exposition == GOLDEN.read_text(), "run `make golden` if this is what you want"


def test_the_golden_fleet_shows_every_family_of_the_catalogue() -> None:
    shown = {
        line.split()[2] for line in GOLDEN.read_text().splitlines() if line.startswith("# TYPE")
    }
    assert shown == set(BY_NAME)


def test_no_series_is_shown_twice(exposition: str) -> None:
    series = [
        line.rpartition(" ")[0] for line in exposition.splitlines() if not line.startswith("#")
    ]
    assert len(series) == len(set(series))


def test_both_formats_parse_and_tell_the_same(exposition: str) -> None:
    opened = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse_openmetrics(openmetrics.generate_latest(registry()).decode())
        for sample in family.samples
    }
    text = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }
    assert opened == text


def test_promtool_complains_of_the_drop_in_names_alone(exposition: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert not IN_CI, "CI has to have promtool (Debian's prometheus)"
        pytest.skip("promtool is not installed (Debian's prometheus)")
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=exposition,
        text=True,
        capture_output=True,
        check=False,
    )
    complaints = (checked.stdout + checked.stderr).splitlines()
    assert [each.partition(" ")[0] for each in complaints] == list(DROP_IN_COUNTS), complaints
    assert all("_count" in each for each in complaints)


def test_name_finds_each_family_without_a_scrape() -> None:
    scrapes = []
    collector = FleetCollector(lambda: scrapes.append(1) or fixed_fleet())  # type: ignore[func-returns-value]
    result = CollectorRegistry()
    result.register(collector)
    assert scrapes == []
    restricted = generate_latest(
        result.restricted_registry(["celery_task_succeeded_total", "celery_worker_up"])
    ).decode()
    assert {line.split()[2] for line in restricted.splitlines() if line.startswith("# TYPE")} == {
        "celery_task_succeeded_total",
        "celery_worker_up",
    }


def two_brokers() -> Fleet:
    fleet = Fleet(Rules(samples.BOOT, Limits()), {"eu": (), "us": ()})
    for broker in ("eu", "us"):
        fleet.apply_report(samples.report(instance=samples.instance(boot_id=broker)), 0.0, broker)
        fleet.apply_queues(broker, [QueueReading("celery", 1, {0: 1})], 0.0)
    return fleet


def test_each_broker_has_its_own_part_of_the_snapshot() -> None:
    parts = dict(by_broker(two_brokers().snapshot(1.0)))
    assert list(parts) == ["eu", "us"]
    for broker, part in parts.items():
        assert {each.broker for each in (*part.groups, *part.queues)} == {broker}


def test_of_several_brokers_each_sample_has_the_label_but_the_exporters_own() -> None:
    families = FleetCollector(lambda: two_brokers().snapshot(1.0)).collect()
    labelled = {
        family.name.startswith("celery_memory_exporter_"): {
            "broker" in sample.labels for sample in family.samples
        }
        for family in families
    }
    assert labelled == {False: {True}, True: {False}}
