"""The settings: their defaults are the example's, and each key has a check."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from celery_memory_exporter.config.loading import load
from celery_memory_exporter.config.settings import LIMITS, Broker, Config
from celery_memory_exporter.fleet.limits import Limits

EXAMPLE = Path(__file__).parent.parent.parent / "config.example.yaml"


def test_the_example_loads_to_exactly_the_defaults() -> None:
    assert load(EXAMPLE, {}) == Config()


def test_the_example_documents_every_key() -> None:
    assert written(yaml.safe_load(EXAMPLE.read_text())) == set(keys(Config()))


def keys(section: Any, path: str = "") -> Iterator[str]:
    """Of a section and of those in it."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from keys(value, f"{path}{field.name}.")
        else:
            yield f"{path}{field.name}"


def written(raw: dict[str, Any], path: str = "") -> set[str]:
    found = set()
    for key, value in raw.items():
        nested = isinstance(value, dict) and value
        found |= written(value, f"{path}{key}.") if nested else {f"{path}{key}"}
    return found


def test_each_limit_has_its_check_which_allows_the_default() -> None:
    defaults = dataclasses.asdict(Limits())
    assert {name: LIMITS[name](value) for name, value in defaults.items()} == defaults
    assert LIMITS.keys() == defaults.keys()


def test_brokers_are_those_with_a_url() -> None:
    one, several = Broker(url="redis://a"), (Broker("eu", "redis://b"), Broker("us", "redis://c"))
    assert Config().all_brokers() == ()
    assert Config(broker=one).all_brokers() == (one,)
    assert Config(brokers=several).all_brokers() == several


def test_a_broker_does_not_show_its_urls() -> None:
    broker = Broker(url="redis://:hunter2@h/0", events_url="redis://:hunter3@h/0")
    assert "hunter" not in repr(Config(broker=broker))
