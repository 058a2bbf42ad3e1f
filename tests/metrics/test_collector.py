"""Snapshot -> exposition. The golden file holds it all for one fixed fleet; `make golden` rewrites
it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import prometheus_client.metrics
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from celery_memory_exporter.fleet.facts import QueueReading, SharedMemory, WorkerFacts
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.fleet.snapshot import Snapshot
from celery_memory_exporter.metrics import collector
from celery_memory_exporter.metrics import exposition as exposition_module
from celery_memory_exporter.metrics.catalogue import BY_NAME, FAMILIES
from celery_memory_exporter.metrics.collector import FleetCollector, Rows
from tests import samples
from tests.conftest import IN_CI

GOLDEN = Path(__file__).parent.parent / "data" / "golden.txt"


def fixed_fleet() -> Snapshot:
    """Three workers: agent and table, table alone, agent alone and in the past; and an exporter
    that has seen things."""
    fleet = Fleet(Rules(samples.BOOT, Limits(tasks_per_worker=2)))
    fleet.apply_report(
        samples.report(worker="celery@past", instance=samples.instance(boot_id="other")), 0.0
    )
    tasks = [
        samples.task(),
        samples.task(queue="slow"),
        samples.task('odd"name\n\\'),
        samples.task("beyond the cap"),
    ]
    fleet.apply_report(samples.report(tasks=tasks), 100.0)
    fleet.apply_report(samples.report(), 100.0)
    fleet.reject_report("undecodable")
    fleet.apply_shared_memory(
        {samples.seen(101).identity: SharedMemory(30 * samples.MIB, 20 * samples.MIB)}
    )
    fleet.apply_worker_event("celery@bare", "worker-heartbeat", 1, 100.0, processed=10)
    fleet.apply_inspection("", {"celery@bare": WorkerFacts("prefork", 1, 1, ("slow",))}, 100.0)
    for kind in (
        "task-sent",
        "task-received",
        "task-started",
        "task-retried",
        "task-received",
        "task-started",
        "task-failed",
    ):
        fleet.apply_task_event(kind, samples.task_event(kind), 100.0)
    fleet.apply_task_event("task-received", samples.task_event("task-received"), 100.0)
    fleet.apply_task_event("task-started", samples.task_event("task-started"), 100.0)
    fleet.apply_task_event(
        "task-succeeded", samples.task_event("task-succeeded", uuid="not known"), 100.0
    )
    for processed in (12, 13, 13):  # one more was started than told
        fleet.apply_worker_event("celery@bare", "worker-heartbeat", 1, 100.0, processed=processed)
    fleet.apply_queues("", [QueueReading("slow", 7, {0: 5, 3: 2}, 1, 12.5)], 100.0)
    for number in range(20):  # a run more adds 1 MiB, and every other reading none
        fleet.apply_task_event(
            "task-received", samples.task_event("task-received", uuid=f"{number}"), 100.0
        )
        if number % 3:
            fleet.apply_task_event(
                "task-succeeded", samples.task_event("task-succeeded", uuid=f"{number}"), 100.0
            )
        table = samples.table("celery@bare", 300, (301,), rss=(number - number // 3) * samples.MIB)
        fleet.apply_processes([samples.table(), table], 100.0)
    fleet.apply_event("worker", 0.25)
    fleet.apply_event("memory", 0.5)
    fleet.apply_source("broker", up=True)
    fleet.apply_source(
        "processes", up=True, duration=0.0125, denied={"processes": False, "shared_memory": True}
    )
    fleet.apply_reconnect()
    return fleet.snapshot(101.0)


def registry() -> CollectorRegistry:
    result = CollectorRegistry()
    result.register(FleetCollector(fixed_fleet))
    return result


@pytest.fixture
def exposition(monkeypatch: pytest.MonkeyPatch) -> str:
    """Without what differs between machines."""
    monkeypatch.setattr(collector.platform, "python_version", lambda: "3.11.7")
    monkeypatch.setattr(collector.celery, "__version__", "5.7.0")
    monkeypatch.setattr(collector, "__version__", "0.1.0")
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
    text = {
        sample.name: sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }
    open_text = openmetrics.generate_latest(registry()).decode()
    opened = {
        sample.name: sample.value
        for family in parse_openmetrics(open_text)
        for sample in family.samples
    }
    assert {name: opened[name] for name in opened if "build_info" not in name} == {
        name: text[name] for name in opened if "build_info" not in name
    }


@pytest.mark.parametrize(
    ("accept", "reference"),
    [
        ("", generate_latest),
        ("application/openmetrics-text;version=1.0.0", openmetrics.generate_latest),
    ],
)
def test_the_bytes_are_prometheus_clients_own(
    accept: str, reference: Callable[[Collector], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = registry()
    ProcessCollector(registry=both, pid=lambda: 0)
    monkeypatch.setattr(
        prometheus_client.metrics, "_use_created", False
    )  # series that ours do not have
    Counter("odd", 'A "quoted" \\ help\nof two lines.', ["label"], registry=both).labels(
        'a\\b\n"c"'
    ).inc(0.1)
    Gauge("numbers", "Numbers.", ["label"], registry=both).labels("huge").set(123456789012.0)
    ours, content_type = exposition_module.encode(both, accept)
    assert ours == reference(both)
    assert content_type == choose_encoder(accept)[1]


#: Names that are the best-known exporter's, against the rule that only histograms and summaries
#: have a count.
DROP_IN_COUNTS = (
    "celery_active_consumer_count",
    "celery_active_process_count",
    "celery_active_worker_count",
)


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


def test_names_follow_the_rules() -> None:
    for family in FAMILIES:
        assert re.fullmatch(r"celery_[a-z0-9_]+", family.name)
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert (family.kind == "info") == family.name.endswith("_info"), family.name
        assert not {"type", "le", "quantile", "job", "instance", "service", "env", "zone"} & set(
            family.labels
        ), family.name
        assert family.help.endswith("."), family.name


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


def test_unknown_is_absent() -> None:
    rows = Rows()
    rows.add("celery_worker_memory_rss_bytes", ("celery@web1", "main"), None)
    rows.add_histogram("celery_task_memory_peak_bytes", ("celery@web1", "shop.leak"), [0.0], None)
    assert list(rows.metrics()) == []


def test_a_value_without_its_labels_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        Rows().add("celery_worker_memory_rss_bytes", ("celery@web1",), 1)


def test_retained_bytes_are_native_bytes_and_blocks() -> None:
    assert samples.task(retained_native_bytes=1000.0, retained_blocks=10.0).retained_bytes == 1900.0
    assert samples.task(retained_native_bytes=None, retained_blocks=10.0).retained_bytes == 900.0
