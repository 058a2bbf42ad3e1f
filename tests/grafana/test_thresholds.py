"""Every number has its reason beside it, and an alert that it decides."""

from __future__ import annotations

import json
import re

import pytest

from grafana.generate import thresholds
from grafana.generate.promql import RECORDED
from grafana.generate.thresholds import OF_ALERT, OF_MOST, Threshold
from tests.grafana.committed import ALERT_NAMES, rules_of


def test_every_threshold_has_a_reason_and_an_alert_that_uses_it() -> None:
    listed = {id(each) for of_alert in (*OF_ALERT.values(), OF_MOST) for each in of_alert}
    for name, threshold in vars(thresholds).items():
        if isinstance(threshold, Threshold):
            assert id(threshold) in listed, name
            assert threshold.reason.endswith("."), name


@pytest.mark.parametrize("name", ALERT_NAMES)
def test_the_thresholds_of_an_alert_are_those_of_its_expression(name: str) -> None:
    text = " ".join([json.dumps(rule) for rule in rules_of(name)])
    recorded = " ".join(expr for record, expr in RECORDED.items() if record in text)
    for threshold in OF_ALERT[name]:
        assert re.search(rf"(?<![\w.]){re.escape(threshold.value)}(?![\w.])", text + recorded), (
            threshold
        )


def test_a_threshold_is_written_as_its_value() -> None:
    assert f"{Threshold('5m', 'time', 'Because.')}" == "5m"
