"""Families -> bytes, which are prometheus_client's own."""

from __future__ import annotations

import math
from collections.abc import Callable

import prometheus_client.metrics
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from celery_memory_exporter.metrics import exposition
from tests.metrics.golden_fleet import registry

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


@pytest.mark.parametrize(
    ("accept", "reference"), [("", generate_latest), (OPENMETRICS, openmetrics.generate_latest)]
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
    ours, content_type = exposition.encode(both, accept)
    assert ours == reference(both)
    assert content_type == choose_encoder(accept)[1]


@given(st.text(), st.floats(allow_nan=False))
def test_a_label_and_a_value_come_back_as_they_went(label: str, value: float) -> None:
    told = CollectorRegistry()
    Gauge("odd", "Odd.", ["label"], registry=told).labels(label).set(value)
    (family,) = text_string_to_metric_families(exposition.encode(told, "")[0].decode())
    (sample,) = family.samples
    assert sample.labels == {"label": label}
    assert math.isclose(sample.value, value, rel_tol=1e-12)


def test_labels_are_sorted_by_name() -> None:
    assert exposition.series("x", (("b", "1"), ("a", "2"))) == 'x{a="2",b="1"}'
    assert exposition.series("x", ()) == "x"


def test_what_utf8_cannot_hold_breaks_no_scrape() -> None:
    told = CollectorRegistry()
    Gauge("odd", "Odd.", ["label"], registry=told).labels("\ud800").set(1)
    assert b'odd{label="?"} 1.0' in exposition.encode(told, "")[0]
