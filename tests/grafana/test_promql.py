"""PromQL that alerts share: windows follow each other, and what is written is PromQL."""

from __future__ import annotations

import re

import pytest

from grafana.generate.promql import RECORDED, WORKING_SET, counted, limit_soon, rising
from grafana.generate.thresholds import Threshold
from tests.grafana.linter import metrics, parsed


def threshold(value: str) -> Threshold:
    return Threshold(value, "", "")


@pytest.mark.parametrize(
    ("window", "offsets"), [("2h", ["2h", "2h", "4h", "6h"]), ("10m", ["10m", "10m", "20m", "30m"])]
)
def test_three_windows_follow_each_other_and_the_series_was_there_before_them(
    window: str, offsets: list[str]
) -> None:
    text = rising("x", threshold(window), threshold("5"))
    parsed(text)
    assert re.findall(r"offset (\w+)", text) == offsets
    assert text.count(f"min_over_time(x[{window}]") == 4
    assert text.count("> 5") == 2


def test_the_line_to_the_limit_is_of_low_water_marks_that_were_there_all_the_time() -> None:
    text = limit_soon(threshold("6h"), threshold("0.6"), threshold("86400"))
    parsed(text)
    assert metrics(text) == {WORKING_SET, "celery_worker_cgroup_memory_limit_bytes"}
    assert "< 86400" in text
    assert f"{WORKING_SET} offset 6h" in text


def test_a_counters_first_value_counts_where_the_agent_told_of_itself_before() -> None:
    text = counted('x{reason="oom"}', threshold("10m"))
    parsed(text)
    assert metrics(text) == {"x", "celery_agent_overhead_seconds_total"}
    assert text.count('x{reason="oom"}') == 3
    assert set(re.findall(r"offset (\w+)", text)) == {"10m"}


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_series_says_by_what_it_is_summed_what_it_is_and_how(name: str) -> None:
    """As Prometheus' documentation names recording rules: level:metric:operation."""
    parsed(RECORDED[name])
    assert re.fullmatch(r"(worker|name):celery_\w+:(avg|min|increase)", name)
