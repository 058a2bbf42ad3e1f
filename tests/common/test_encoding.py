"""Records as plain values."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_memory_exporter.common.codec import encode
from celery_memory_exporter.common.encoding import plain
from celery_memory_exporter.common.evidence import Evidence
from celery_memory_exporter.common.report import ProcessReport, TaskReport, WorkerReport
from tests import samples


def as_dataclasses_say(record: Any) -> dict[str, Any]:
    """Slowly, with what is absent left out."""
    encoded: dict[str, Any] = dataclasses.asdict(
        record, dict_factory=lambda pairs: {key: value for key, value in pairs if value is not None}
    )
    return encoded


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(st.from_type(WorkerReport))
def test_any_report_is_encoded_as_dataclasses_say(report: WorkerReport) -> None:
    assert repr(encode(report)) == repr(as_dataclasses_say(report)), "the order of keys, too"


@given(st.from_type(TaskReport) | st.from_type(Evidence) | st.from_type(ProcessReport))
def test_so_is_any_part_of_one(part: Any) -> None:
    assert repr(plain(part)) == repr(as_dataclasses_say(part))


def test_lists_of_numbers_are_not_copied() -> None:
    report = samples.report()
    encoded = encode(report)
    assert encoded["tasks"][0]["delta"]["counts"] is report.tasks[0].delta.counts
    assert encoded["tasks"][0]["runs"] is report.tasks[0].runs
