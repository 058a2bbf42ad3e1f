"""The JSON of a diagnosis, back into values."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_memory_exporter.common.evidence import Estimate, Holder
from celery_memory_exporter.diagnosis.decoding import DecodeError, decode
from celery_memory_exporter.diagnosis.verdict import (
    Cleared,
    Diagnosis,
    ObjectRate,
    SiteRate,
    WorkerVerdict,
)
from tests.diagnosis.evidence import suspect
from tests.strategies import JSON

FULL = Diagnosis(
    suspects=(
        suspect(
            object_types=(ObjectRate("shop.Cart", 1.0),),
            sites=(SiteRate("shop.py:71", 900.0),),
            holders=(
                Holder("shop.held", "dict", 99, 4.0, 500, Estimate(1.0, None, 1.0, None, 9, 9)),
            ),
            paths=("shop.held",),
        ),
        suspect(task=None, process="main"),
    ),
    cleared=(Cleared("celery@web1", "shop.fine", "steady", "nothing", 0.0, 10, 5),),
    workers=(WorkerVerdict("celery@web1", True, 0.0, 2**30, None, None, "python", ""),),
)


def plain(diagnosis: Diagnosis = FULL) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(diagnosis)))


@given(st.from_type(Diagnosis))
def test_what_the_exporter_says_is_what_is_read(diagnosis: Diagnosis) -> None:
    assert repr(decode(plain(diagnosis))) == repr(diagnosis), "what is no number equals nothing"


def test_a_whole_number_is_a_number() -> None:
    raw = plain()
    raw["suspects"][0]["confidence"] = 1
    assert decode(raw).suspects[0].confidence == 1


def test_keys_of_a_newer_exporter_are_left_out() -> None:
    raw = plain()
    raw["version"] = raw["suspects"][0]["mood"] = "new"
    assert decode(raw) == FULL


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "diagnosis: expected dict, found '[]'"),
        ({}, "diagnosis.suspects: missing"),
        ({**plain(), "suspects": {}}, "diagnosis.suspects: expected list, found '{}'"),
        ({**plain(), "cleared": [7]}, "diagnosis.cleared[0]: expected dict, found '7'"),
    ],
)
def test_an_answer_that_is_no_diagnosis_is_refused_with_the_place(raw: Any, message: str) -> None:
    with pytest.raises(DecodeError) as error:
        decode(raw)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("runs", 1.5, "expected int, found '1.5'"),
        ("runs", True, "expected int, found 'True'"),
        ("worker", None, "expected str, found 'None'"),
        ("task", 7, "expected str, found '7'"),
        ("confidence", "much", "expected float, found 'much'"),
        ("paths", "shop.held", "expected list, found 'shop.held'"),
    ],
)
def test_each_field_has_its_type(key: str, value: object, message: str) -> None:
    raw = plain()
    raw["suspects"][1][key] = value
    with pytest.raises(DecodeError) as error:
        decode(raw)
    assert str(error.value) == f"diagnosis.suspects[1].{key}: {message}"


def test_an_exporter_that_named_a_field_otherwise_is_refused() -> None:
    raw = plain()
    site = raw["suspects"][0]["sites"][0]
    site["bytes_per_run"] = site.pop("amount_per_run")
    with pytest.raises(DecodeError) as error:
        decode(raw)
    assert str(error.value) == "diagnosis.suspects[0].sites[0].amount_per_run: missing"


@given(JSON)
def test_whatever_else_comes_is_refused(raw: object) -> None:
    with pytest.raises(DecodeError):
        decode(raw)


@given(st.data(), JSON)
def test_one_wrong_value_is_refused_or_read(data: st.DataObject, value: object) -> None:
    raw = plain()
    at = raw
    while isinstance(at, (dict, list)) and at:
        key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
        parent, at = at, at[key]
    parent[key] = value
    try:
        assert isinstance(decode(raw), Diagnosis)
    except DecodeError as error:
        assert str(error).startswith("diagnosis.")
