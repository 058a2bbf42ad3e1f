"""Queries: selectors in full, and what a counter rose by."""

from __future__ import annotations

import re

import pytest

from grafana.generate.queries import SELECTORS, expression, now, query, risen, rows
from tests.grafana.linter import metrics, parsed, selectors


@pytest.mark.parametrize("name", SELECTORS)
def test_a_selector_follows_the_target_and_keeps_its_own_matchers(name: str) -> None:
    text = expression(f'up{{${name},process="main"}}')
    (selector,) = selectors(re.sub(r"\$\w+", "x", text))
    matched = [matcher.name for matcher in selector.matchers.matchers]
    assert matched[:4] == ["cluster", "namespace", "job", "instance"]
    assert matched[-1] == "process"
    assert len(set(matched)) == len(matched)


def test_variables_that_are_no_selectors_stay() -> None:
    assert expression("rate(x[$__rate_interval])\n  / $__range_s") == (
        "rate(x[$__rate_interval]) / $__range_s"
    )


def test_what_rose_counts_a_series_that_began_meanwhile_from_zero() -> None:
    text = expression(risen("failed_total{$worker}", "name", "5m"))
    parsed(re.sub(r"\$\w+", "x", text))
    assert text.startswith("sum by (name) (failed_total{")
    assert "unless failed_total{" in text
    assert re.findall(r"offset (\w+)", text) == ["5m", "5m"], "the series, and who counts it"
    assert "increase(failed_total{" in text
    assert metrics(re.sub(r"\$\w+", "x", text)) == {
        "failed_total",
        "celery_memory_exporter_build_info",
    }


def test_a_query_is_of_a_range_or_of_now() -> None:
    assert (query("up")["range"], query("up")["instant"]) == (True, False)
    for instant in (now("up", "{{job}}"), rows("up")):
        assert (instant["range"], instant["instant"]) == (False, True)
    assert rows("up")["format"] == "table"
