"""The wire format: what is encoded is decoded, and nothing else gets in."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celery_memory_exporter.common.codec import MAX_LIST_ITEMS, REASONS, DecodeError, decode, encode
from celery_memory_exporter.common.report import HISTORY, VERSION
from tests import samples
from tests.strategies import JSON


def over_the_wire(value: object) -> Any:
    return json.loads(json.dumps(value))


def test_a_report_survives_the_wire() -> None:
    report = samples.report()
    assert decode(over_the_wire(encode(report))) == report


def test_what_a_process_cannot_read_is_left_out_and_stays_unknown() -> None:
    report = samples.report(
        processes=[samples.process("main", 100, native_live_bytes=None)],
        tasks=[samples.task(retained_native_bytes=None, peak=None)],
        child_memory_limit_bytes=None,
    )
    raw = over_the_wire(encode(report))
    assert "native_live_bytes" not in raw["processes"][0]
    assert decode(raw) == report


def test_a_newer_agent_may_say_more() -> None:
    raw = over_the_wire(encode(samples.report()))
    raw["weather"] = "fine"
    raw["tasks"][0]["mood"] = {"good": 1}
    assert decode(raw) == samples.report()


@pytest.mark.parametrize("version", [VERSION + 1, 0, "1", None, [], 1.5])
def test_another_version_is_refused_as_such(version: object) -> None:
    raw = over_the_wire(encode(samples.report()))
    raw["version"] = version
    with pytest.raises(DecodeError) as caught:
        decode(raw)
    assert caught.value.reason == "version"


def changed(path: str, value: object) -> dict[str, Any]:
    raw = over_the_wire(encode(samples.report()))
    *parents, last = path.split(".")
    target = raw
    for each in parents:
        target = target[int(each)] if each.isdigit() else target[each]
    if value is ...:
        del target[last]
    else:
        target[int(last) if last.isdigit() else last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("worker", ..., "report.worker: missing"),
        ("worker", "", "report.worker: 0 characters"),
        ("worker", "w" * 256, "report.worker: 256 characters"),
        ("worker", 7, "report.worker: expected a string of at most 1000 characters, found int '7'"),
        ("sequence", True, "report.sequence: expected an integer, found bool 'True'"),
        ("sequence", -1, "WorkerReport.sequence: below zero"),
        ("sequence", 10**400, "report.sequence: expected a finite number within 2**62, found int"),
        (
            "interval_seconds",
            float("nan"),
            "report.interval_seconds: expected a finite number within 2**62",
        ),
        ("processes", {}, "report.processes: expected a list"),
        (
            "processes.0.rss_bytes",
            1.5,
            "report.processes[0].rss_bytes: expected an integer, found float",
        ),
        ("processes.1.open_fds", -2, "ProcessReport.open_fds: below zero"),
        ("traffic.0.runtime", None, "report.traffic[0].runtime: missing"),
        ("traffic.0.runtime.counts", [1], "runtime of shop.leak: 1 counts do not fit 2 bounds"),
        (
            "traffic.0.queue_wait.counts",
            [],
            "queue wait of shop.leak: 0 counts do not fit 2 bounds",
        ),
        ("traffic.1.received", -1, "Traffic.received: below zero"),
        (
            "tasks.0.seconds.succeeded",
            "1",
            "report.tasks[0].seconds.succeeded: expected a number, found str",
        ),
        ("tasks.0.delta.counts.0", -1, "delta of shop.leak: 4 counts do not fit 3 bounds"),
        ("tasks.0.runs.succeeded", -1, "TaskReport.runs: below zero"),
        ("bounds.runtime_seconds", [1.0, 1.0], "report.bounds.runtime_seconds: not ascending"),
        ("bounds.peak_bytes", [], "report.bounds.peak_bytes: not ascending"),
        ("processes.1.process", "main", "report.processes: a process is told twice"),
        ("processes.1.retained_history", [1.0], "retained_history: not one a point"),
        (
            "objects",
            [{"type": "x", "count": 1, "growth": 0}] * (MAX_LIST_ITEMS + 1),
            "report.objects: expected a list of at most",
        ),
    ],
)
def test_a_malformed_report_is_refused_with_the_place(
    path: str, value: object, message: str
) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(changed(path, value))
    assert caught.value.reason == "malformed"
    assert message in str(caught.value)


def test_runs_may_have_freed_more_than_they_left_behind() -> None:
    points = [[float(second)] * len(HISTORY) for second in range(2)]
    process = samples.process("0", 101, history=points, retained_history=[0.0, -5.0])
    report = samples.report(processes=[process])
    assert decode(over_the_wire(encode(report))) == report


def test_a_lone_surrogate_becomes_something_that_can_be_shown() -> None:
    decoded = decode(changed("tasks.0.name", "\ud800"))
    decoded.tasks[0].name.encode("utf-8")


@given(JSON)
def test_nothing_but_a_report_is_decoded(raw: object) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(raw)
    assert caught.value.reason in REASONS


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_report_is_refused_or_complete(data: st.DataObject) -> None:
    """One value anywhere in a good report is replaced or removed."""
    raw = copy.deepcopy(over_the_wire(encode(samples.report())))
    node: Any = raw
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if isinstance(node[key], (dict, list)) and node[key] and data.draw(st.booleans()):
            node = node[key]
            continue
        if isinstance(node, dict) and data.draw(st.booleans()):
            del node[key]
        else:
            node[key] = data.draw(JSON)
        break
    try:
        report = decode(raw)
    except DecodeError as error:
        assert error.reason in REASONS
    else:
        assert [field.name for field in dataclasses.fields(report)]
        encode(report)
