"""systemd's unit files as values: ``man systemd.syntax``."""

from __future__ import annotations

from pathlib import Path

SYSTEMD = Path(__file__).parent.parent.parent / "deploy" / "systemd"
UNIT = SYSTEMD / "celery-memory-exporter.service"

Unit = dict[str, dict[str, list[str]]]


def read(*files: Path) -> Unit:
    """By section and directive all values, in order: a drop-in's after the unit's; an empty one
    takes back what was said."""
    unit: Unit = {}
    section: dict[str, list[str]] = {}
    for file in files:
        for line in file.read_text().splitlines():
            if line.startswith("["):
                section = unit.setdefault(line.strip("[]"), {})
            elif line and not line.startswith(("#", ";")):
                directive, equals, value = line.partition("=")
                assert equals, f"{file.name}: {line}"
                section[directive] = [*section.get(directive, []), value] if value else []
    return unit


def drop_in(name: str) -> Path:
    return SYSTEMD / "drop-ins" / f"{name}.conf"
