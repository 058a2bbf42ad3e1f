"""Strict YAML -> frozen settings. What is not known is refused, with file, key path, what was found
and what is allowed.

Precedence: command line, then environment (``CELERY_MEMORY_…``, for the common few), then the file,
then the defaults, which are the values of ``settings`` and ``config.example.yaml``'s alike (a test
says so).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from celery_memory_exporter.common.urls import safe_url
from celery_memory_exporter.config.checks import Check
from celery_memory_exporter.config.settings import Config

#: What may be set without a file: key path by environment variable.
ENVIRONMENT = {
    "CELERY_MEMORY_BROKER_URL": "broker.url",
    "CELERY_MEMORY_EVENTS_URL": "broker.events_url",
    "CELERY_MEMORY_LISTEN_ADDRESS": "listen.address",
    "CELERY_MEMORY_LOG_LEVEL": "log.level",
}

T = TypeVar("T")
NONE: Mapping[str, Check] = {}


class ConfigError(ValueError):
    """One line for the user: where, what was found, what is allowed."""


class _UniqueKeys(yaml.SafeLoader):
    """YAML allows a key twice and keeps the last: a setting that silently does not hold."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: Path | None, overrides: Mapping[str, tuple[str, str]]) -> Config:
    """The file's settings (or the defaults) with ``overrides``:
    ``{key path: (value, where it comes from)}``.

    Raises ``ConfigError`` for a file that cannot be read, is no YAML, or says something that is not
    allowed.
    """
    raw = {} if path is None else _parse(path)
    config = _read(Config, raw, "", str(path) if path else "defaults")
    for key, (value, source) in overrides.items():
        section_name, _, name = key.partition(".")
        section = getattr(config, section_name)
        field = {field.name: field for field in dataclasses.fields(section)}[name]
        checked = _checked(field.metadata["check"], value, source, secret=field.metadata["secret"])
        changed = dataclasses.replace(section, **{name: checked})
        config = dataclasses.replace(config, **{section_name: changed})
    _check_brokers(config, str(path))
    return config


def _check_brokers(config: Config, source: str) -> None:
    """What one key alone does not say."""
    if config.brokers and config.broker.url:
        raise ConfigError(
            f"{source}: brokers: given beside broker.url (or --broker-url); allowed is one of them"
        )
    names = [broker.name for broker in config.brokers]
    if any(not name for name in names) or len(set(names)) < len(names):
        raise ConfigError(
            f"{source}: brokers: found the names {names}, allowed are different ones, one for each"
        )
    if any(broker.url is None for broker in config.brokers):
        raise ConfigError(f"{source}: brokers: each needs a url")
    if any(None in (group.match, group.name) for group in config.worker_groups):
        raise ConfigError(f"{source}: worker_groups: each needs match and name")


def _parse(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 text") from error
    except yaml.YAMLError as error:
        # Without the snippet that the error itself shows: it may hold a password.
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        raise ConfigError(
            f"{where}: is no valid YAML: {getattr(error, 'problem', None) or 'unreadable'}"
        ) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: found {type(raw).__name__} at the top, allowed is a mapping of sections"
        )
    return raw


def _read(
    cls: type[T], raw: dict[str, Any], path: str, source: str, checks: Mapping[str, Check] = NONE
) -> T:
    """``checks``: of the keys of a class that does not hold them itself."""
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass here
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in fields:
            shown = f"{source}: {path}{safe_url(str(key))[:60]}"
            raise ConfigError(f"{shown}: unknown key; allowed here: {', '.join(sorted(fields))}")
        field, where = fields[key], f"{source}: {path}{key}"
        if key in checks:
            values[key] = _checked(checks[key], value, where)
        elif "check" in field.metadata:
            secret = field.metadata["secret"]
            values[key] = _checked(field.metadata["check"], value, where, secret=secret)
        elif "list_of" in field.metadata:
            values[key] = _read_list(field.metadata["list_of"], value, f"{path}{key}", source)
        elif value is not None:  # as it is where all keys of a section are commented out
            values[key] = _read_section(field, value, f"{path}{key}", source)
    return cls(**values)


def _read_section(field: dataclasses.Field[Any], raw: Any, path: str, source: str) -> Any:
    cls: type = field.default_factory  # type: ignore[assignment]  # of a section it is its class
    if not isinstance(raw, dict):
        keys = ", ".join(sorted(each.name for each in dataclasses.fields(cls)))
        raise ConfigError(
            f"{source}: {path}: found {type(raw).__name__}, allowed is a mapping with {keys}"
        )
    return _read(cls, raw, f"{path}.", source, field.metadata.get("checks", NONE))


def _read_list(cls: type[T], raw: Any, path: str, source: str) -> tuple[T, ...]:
    if not isinstance(raw, list) or not all(isinstance(each, dict) for each in raw):
        raise ConfigError(
            f"{source}: {path}: found {type(raw).__name__}, allowed is a list of mappings"
        )
    return tuple(_read(cls, each, f"{path}[{index}].", source) for index, each in enumerate(raw))


def _checked(check: Check, value: Any, where: str, *, secret: bool = False) -> Any:
    try:
        return check(value)
    except ValueError as error:
        found = "a value that is not shown here" if secret else _shown(value)
        raise ConfigError(f"{where}: found {found}, allowed is {error}") from error


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"
