"""Strict YAML -> frozen settings. What is not known is refused, with file, key path, what was found and what is allowed.

Precedence: command line, then environment (``CELERY_MEMORY_…``, for the common few), then the file, then the
defaults, which are this module's values and ``config.example.yaml``'s alike (a test says so).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from celery_memory_exporter.bounds import Limits
from celery_memory_exporter.urls import safe_url


class ConfigError(ValueError):
    """One line for the user: where, what was found, what is allowed."""


Check = Callable[[Any], Any]


def allowed(description: str, check: Callable[[Any], bool], convert: Callable[[Any], Any] = lambda value: value) -> Check:
    """A check that answers with the converted value or raises ``ValueError`` with what is allowed."""

    def apply(value: Any) -> Any:
        if not check(value):
            raise ValueError(description)
        return convert(value)

    return apply


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(low: float, high: float) -> Check:
    return allowed(f"a number between {low:g} and {high:g}", lambda value: _is_number(value) and low <= value <= high, float)


def integer(low: int, high: int) -> Check:
    def check(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return allowed(f"an integer between {low} and {high}", check)


boolean = allowed("true or false", lambda value: isinstance(value, bool))
text = allowed("a string", lambda value: isinstance(value, str) and bool(value))
mapping = allowed("a mapping of option names to values", lambda value: isinstance(value, dict))

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S*$")
url = allowed(
    "a kombu URL such as redis://host:6379/0 or amqp://user:password@host:5672//, or null",
    lambda value: value is None or (isinstance(value, str) and bool(URL.match(value))),
)

LOG_LEVELS = ("debug", "info", "warning", "error")
log_level = allowed(
    f"one of {', '.join(LOG_LEVELS)}", lambda value: isinstance(value, str) and value.lower() in LOG_LEVELS, str.lower
)

ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:\s]*)):(?P<port>\d{1,5})$")


def split_address(address: str) -> tuple[str, int]:
    """``host:port``, ``[::1]:port`` or ``:port`` (every address). Raises ``ValueError`` for anything else."""
    match = ADDRESS.match(address)
    if match is None or not 0 <= int(match["port"]) <= 65535:
        raise ValueError("host:port, [IPv6]:port or :port, with a port up to 65535")
    return match["six"] or match["host"] or "", int(match["port"])


def address(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError('host:port, [IPv6]:port or :port, in quotes (":9808")')
    split_address(value)
    return value


def option(default: Any, check: Check, *, secret: bool = False) -> Any:
    """A key with its default and its check. A secret's value never shows in a message."""
    factory: dict[str, Any] = {"default_factory": lambda: dict(default)} if isinstance(default, dict) else {"default": default}
    return dataclasses.field(**factory, metadata={"check": check, "secret": secret})


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the workers' events are: the workers' own broker, or their ``CELERY_MEMORY_EVENTS_URL``."""

    url: str | None = option(None, url, secret=True)
    transport_options: dict[str, Any] = option({}, mapping)
    event_exchange: str = option("celeryev", text)
    reconnect_max_seconds: float = option(30.0, number(1, 3600))

    def __repr__(self) -> str:
        """Without the URL, which may hold a password."""
        return f"Broker(url={'…' if self.url else None}, event_exchange={self.event_exchange!r})"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where ``/metrics`` answers."""

    address: str = option(":9808", address)


@dataclass(frozen=True, slots=True)
class Processes:
    """The local process table as a source."""

    enabled: bool = option(True, boolean)
    interval_seconds: float = option(5.0, number(0.5, 300))
    shared_memory_interval_seconds: float = option(60.0, number(5, 86_400))
    shared_memory_max_rss_bytes: int = option(4 * 1024**3, integer(0, 2**50))


@dataclass(frozen=True, slots=True)
class Caps:
    """Bounds of what is shown, see ``bounds.Limits``."""

    workers: int = option(1_000, integer(1, 100_000))
    tasks_per_worker: int = option(200, integer(1, 10_000))
    object_types_per_worker: int = option(20, integer(0, 1_000))
    exceptions_per_task: int = option(50, integer(1, 1_000))
    label_length: int = option(120, integer(16, 1_000))

    def limits(self) -> Limits:
        return Limits(
            workers=self.workers,
            tasks=self.tasks_per_worker,
            object_types=self.object_types_per_worker,
            exceptions=self.exceptions_per_task,
            label_length=self.label_length,
        )


@dataclass(frozen=True, slots=True)
class Log:
    """What is told on standard error."""

    level: str = option("info", log_level)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of ``celery-memory-exporter serve``."""

    broker: Broker = dataclasses.field(default_factory=Broker)
    listen: Listen = dataclasses.field(default_factory=Listen)
    processes: Processes = dataclasses.field(default_factory=Processes)
    limits: Caps = dataclasses.field(default_factory=Caps)
    log: Log = dataclasses.field(default_factory=Log)
    expire_after_seconds: float = option(600.0, number(10, 86_400))
    heartbeat_timeout_seconds: float = option(300.0, number(5, 86_400))


#: What may be set without a file: key path by environment variable.
ENVIRONMENT = {
    "CELERY_MEMORY_BROKER_URL": "broker.url",
    "CELERY_MEMORY_LISTEN_ADDRESS": "listen.address",
    "CELERY_MEMORY_LOG_LEVEL": "log.level",
}

T = TypeVar("T")


class _UniqueKeys(yaml.SafeLoader):
    """YAML allows a key twice and keeps the last: a setting that silently does not hold."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def load(path: Path | None, overrides: Mapping[str, tuple[str, str]]) -> Config:
    """The file's settings (or the defaults) with ``overrides``: ``{key path: (value, where it comes from)}``.

    Raises ``ConfigError`` for a file that cannot be read, is no YAML, or says something that is not allowed.
    """
    raw = {} if path is None else _parse(path)
    config = _read(Config, raw, "", str(path) if path else "defaults")
    for key, (value, source) in overrides.items():
        section_name, _, name = key.partition(".")
        section = getattr(config, section_name)
        field = {field.name: field for field in dataclasses.fields(section)}[name]
        changed = dataclasses.replace(section, **{name: _checked(field, value, source)})
        config = dataclasses.replace(config, **{section_name: changed})
    return config


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
        raise ConfigError(f"{where}: is no valid YAML: {getattr(error, 'problem', None) or 'unreadable'}") from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: found {type(raw).__name__} at the top, allowed is a mapping of sections")
    return raw


def _read(cls: type[T], raw: dict[str, Any], path: str, source: str) -> T:
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # T is a dataclass here
    values: dict[str, Any] = {}
    for key, value in raw.items():
        where = f"{source}: {path}{key}"
        if key not in fields:
            shown = f"{source}: {path}{safe_url(str(key))[:60]}"
            raise ConfigError(f"{shown}: unknown key; allowed here: {', '.join(sorted(fields))}")
        if "check" in fields[key].metadata:
            values[key] = _checked(fields[key], value, where)
        elif value is None:
            continue  # a section whose keys are all commented out
        elif isinstance(value, dict):
            values[key] = _read(fields[key].default_factory, value, f"{path}{key}.", source)  # type: ignore[arg-type]
        else:
            raise ConfigError(f"{where}: found {type(value).__name__}, allowed is a mapping with {', '.join(keys_of(fields[key]))}")
    return cls(**values)


def keys_of(section: dataclasses.Field[Any]) -> list[str]:
    return sorted(field.name for field in dataclasses.fields(section.default_factory))  # type: ignore[arg-type]


def _checked(field: dataclasses.Field[Any], value: Any, where: str) -> Any:
    try:
        return field.metadata["check"](value)
    except ValueError as error:
        found = "a value that is not shown here" if field.metadata["secret"] else _shown(value)
        raise ConfigError(f"{where}: found {found}, allowed is {error}") from error


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:60]!r}"
