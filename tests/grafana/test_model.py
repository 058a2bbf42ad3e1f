"""What a model of Grafana's leaves out is told."""

from __future__ import annotations

from tests.grafana.model import differences


def test_the_model_sees_a_field_that_is_not_known() -> None:
    assert list(differences({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 3}]})) == [
        ".a[0].b is 3 instead of 1",
        ".a[0].c is not known",
    ]


def test_a_default_that_the_model_adds_is_no_difference() -> None:
    assert list(differences({"a": [1]}, {"a": [1], "b": None})) == []


def test_lists_of_different_lengths_differ_as_a_whole() -> None:
    assert list(differences({"a": [1, 2]}, {"a": [1]})) == [".a is [1] instead of [1, 2]"]


def test_what_only_the_data_source_reads_of_an_annotation_need_not_be_known() -> None:
    assert list(differences({"titleFormat": "x", "title": "y"}, {})) == [".title is not known"]
