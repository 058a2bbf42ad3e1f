"""The catalogue keeps to Prometheus' rules for names, and its parts to one another."""

from __future__ import annotations

import re

import pytest

from celery_memory_exporter.metrics.catalogue import BY_NAME, FAMILIES, HIGHEST, NOT_TOGETHER
from celery_memory_exporter.metrics.families.family import Family

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
#: Prometheus, its targets and dashboards use them for something else.
TAKEN = {"type", "le", "quantile", "job", "instance", "service", "env", "zone", "broker"}


@every_family
def test_a_name_says_the_kind(family: Family) -> None:
    assert re.fullmatch(r"celery_[a-z0-9_]+", family.name)
    assert (family.kind == "counter") == family.name.endswith("_total")
    assert (family.kind == "info") == family.name.endswith("_info")


@every_family
def test_labels_are_apart_from_those_of_others(family: Family) -> None:
    assert not TAKEN & set(family.labels)
    assert len(set(family.labels)) == len(family.labels)


@every_family
def test_help_is_a_sentence(family: Family) -> None:
    assert family.help.endswith(".")
    assert family.help[0].isupper() or family.help[0].isdigit() or "_" in family.help.split()[0]


def test_no_family_is_there_twice() -> None:
    assert len(BY_NAME) == len(FAMILIES)


def test_what_is_said_of_groups_is_said_of_families() -> None:
    assert BY_NAME.keys() >= HIGHEST | NOT_TOGETHER
    assert not HIGHEST & NOT_TOGETHER


def test_no_counter_of_a_group_is_its_highest_members() -> None:
    """The highest of several counters falls when its worker goes."""
    assert not {name for name in HIGHEST if BY_NAME[name].kind in ("counter", "histogram")}
