"""Samples by family, as the catalogue has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.report import Histogram
from celery_memory_exporter.metrics.catalogue import FAMILIES
from celery_memory_exporter.metrics.samples import Samples, empty_metric

RSS = "celery_worker_memory_rss_bytes"
UP = "celery_worker_up"
PEAK = "celery_task_memory_peak_bytes"
DELTA = "celery_task_memory_delta_bytes"


def shown(samples: Samples) -> dict[tuple[str, ...], float]:
    """Values by the name of the sample and its labels' values."""
    return {
        (each.name, *each.labels.values()): each.value
        for metric in samples.metrics()
        for each in metric.samples
    }


def test_unknown_is_absent() -> None:
    samples = Samples()
    samples.add(RSS, ("celery@web1", "main"), None)
    samples.add_histogram(PEAK, ("celery@web1", "shop.leak"), [0.0], None)
    assert list(samples.metrics()) == []


def test_zero_is_known() -> None:
    samples = Samples()
    samples.add(RSS, ("celery@web1", "main"), 0)
    assert shown(samples) == {(RSS, "celery@web1", "main"): 0.0}


def test_a_value_without_its_labels_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        Samples().add(RSS, ("celery@web1",), 1)


def test_a_family_that_the_catalogue_does_not_have_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Samples().add("celery_worker_made_up", ("celery@web1",), 1)


def test_buckets_are_cumulative_and_end_with_all() -> None:
    samples = Samples()
    samples.add_histogram(PEAK, ("w", "t"), [0.0, 10.0], Histogram([1, 2, 3], 99.0))
    assert shown(samples) == {
        (f"{PEAK}_bucket", "w", "t", "0.0"): 1,
        (f"{PEAK}_bucket", "w", "t", "10.0"): 3,
        (f"{PEAK}_bucket", "w", "t", "+Inf"): 6,
        (f"{PEAK}_count", "w", "t"): 6,
        (f"{PEAK}_sum", "w", "t"): 99,
    }


def test_a_histogram_with_a_negative_bound_has_no_sum() -> None:
    samples = Samples()
    samples.add_histogram(DELTA, ("w", "t"), [-1.0, 1.0], Histogram([1, 2, 3], -99.0))
    assert {name for name, *_ in shown(samples)} == {f"{DELTA}_bucket"}


def test_families_come_in_the_catalogues_order() -> None:
    samples = Samples()
    samples.add(RSS, ("w", "main"), 1)
    samples.add(UP, ("w", "host"), 1)
    assert [metric.name for metric in samples.metrics()] == [UP, RSS]


@given(st.lists(st.integers(0, 1000), min_size=1))
def test_together_values_are_added_up_and_of_limits_the_highest_is_kept(values: list[int]) -> None:
    samples = Samples()
    samples.together = True
    for value in values:
        samples.add(RSS, ("group", "main"), value)
        samples.add("celery_worker_open_fds", ("group", "main"), value)
    assert shown(samples) == {
        (RSS, "group", "main"): sum(values),
        ("celery_worker_open_fds", "group", "main"): max(values),
    }


def test_apart_nothing_is_merged() -> None:
    samples = Samples()
    for _ in range(2):
        samples.add(RSS, ("w", "main"), 1)
    (metric,) = samples.metrics()
    assert len(metric.samples) == 2


def test_counters_of_processes_are_left_out_of_a_group() -> None:
    samples = Samples()
    for samples.together in (True, False):
        worker = f"{samples.together}"
        samples.add("celery_worker_gc_collections_total", (worker, "main", "0"), 1)
    assert [worker for _, worker, *_ in shown(samples)] == ["False"]


def test_the_broker_is_the_first_label_where_there_is_one() -> None:
    samples = Samples()
    samples.broker = "eu"
    samples.add(UP, ("w", "host"), 1)
    samples.broker = None
    samples.add(UP, ("w", "host"), 1)
    (metric,) = samples.metrics()
    assert [list(each.labels) for each in metric.samples] == [
        ["broker", "worker", "hostname"],
        ["worker", "hostname"],
    ]


def test_an_empty_family_is_named_as_prometheus_client_does() -> None:
    for family in FAMILIES:
        metric = empty_metric(family)
        suffix = {"counter": "_total", "info": "_info"}.get(family.kind, "")
        assert (metric.name + suffix, metric.type) == (family.name, family.kind)
