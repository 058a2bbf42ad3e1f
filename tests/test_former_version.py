"""An exporter goes on reading the agents of the version before: fleets are not updated at once.

``data/report-0.1.0.json`` holds what the agent of 0.1.0 sent in two real workers, one with a
prefork pool and one with threads: tasks that leak entries of a dict and open files, that fail, are
retried, or kill their child. Only the boot id was made up. The texts beside it are what the
exporter of 0.1.0 made of them, one second and 400 seconds after they came.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from celery_memory_exporter.common.codec import decode, encode
from celery_memory_exporter.fleet.fleet import Fleet
from celery_memory_exporter.fleet.limits import Limits
from celery_memory_exporter.fleet.rules import Rules
from celery_memory_exporter.metrics import exposition
from celery_memory_exporter.metrics.collector import FleetCollector

DATA = Path(__file__).parent / "data"
REPORTS = json.loads((DATA / "report-0.1.0.json").read_text())
#: The only line that tells of the exporter's own version.
OWN_VERSION = "celery_memory_exporter_build_info{"


def rendered(now: float) -> list[str]:
    fleet = Fleet(Rules("another machine's", Limits()))
    for each in REPORTS:
        assert fleet.apply_report(decode(each), 0.0) is None
    registry = CollectorRegistry()
    registry.register(FleetCollector(lambda: fleet.snapshot(now)))
    text = exposition.encode(registry, "")[0].decode()
    return [line for line in text.splitlines() if not line.startswith(OWN_VERSION)]


@pytest.mark.parametrize(("now", "name"), [(1.0, "alive"), (400.0, "silent")])
def test_a_report_of_version_0_1_0_decodes_and_renders_as_it_did(now: float, name: str) -> None:
    assert rendered(now) == (DATA / f"report-0.1.0-{name}.txt").read_text().splitlines()


def kept(raw: Any, told: Any) -> bool:
    """Whether all of the former is in the latter, which may have more fields."""
    if isinstance(raw, dict):
        return all(name in told and kept(value, told[name]) for name, value in raw.items())
    if isinstance(raw, list):
        return len(raw) == len(told) and all(map(kept, raw, told))
    return bool(raw == told)


@pytest.mark.parametrize("raw", REPORTS, ids=lambda raw: raw["pool"])
def test_every_field_of_version_0_1_0_has_kept_its_name(raw: dict[str, object]) -> None:
    assert kept(raw, encode(decode(raw)))
