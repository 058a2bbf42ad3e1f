"""An application's module that leaks, and runs of its task until a deep audit knows something."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from celery.app.trace import trace_ok_t

from celery_memory_exporter.agent.audit.dossier import Dossier
from celery_memory_exporter.agent.guard import Guard
from celery_memory_exporter.agent.meter.calibration import calibrated_meter
from celery_memory_exporter.agent.meter.conditions import Conditions
from celery_memory_exporter.agent.meter.meter import Meter
from celery_memory_exporter.agent.meter.tracer import measured
from celery_memory_exporter.agent.stats.budget import Budget
from celery_memory_exporter.agent.stats.readings import Readings

Load = Callable[[str], ModuleType]
KEY = ("t", "")
MANY = 3_000


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Makes an application's module of a source, importable until the test ends."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(source: str) -> ModuleType:
        (tmp_path / "leaky.py").write_text(textwrap.dedent(source))
        return importlib.import_module("leaky")

    yield write
    sys.modules.pop("leaky", None)


def line_of(module: ModuleType, code: str) -> str:
    assert module.__file__ is not None
    lines = Path(module.__file__).read_text().splitlines()
    return f"leaky.py:{1 + next(at for at, line in enumerate(lines) if code in line)}"


def knows(dossier: Dossier, figure: str) -> bool:
    return any(known == figure for known, _ in dossier.sites)


def make_meter() -> Meter:
    meter = calibrated_meter(Guard(), Readings(), Conditions(max_tasks=200))
    meter.auditor.budget, meter.deep.budget = Budget(0.0, 1e9), Budget(0.0, 1e9)
    return meter


def run_until(
    meter: Meter, body: Callable[[], object], done: Callable[[Dossier], object]
) -> Dossier:
    def trace(*_: Any) -> trace_ok_t:
        body()
        return trace_ok_t(None, None, float("0.25"), "".join(["None"]))

    wrapped = measured(meter, "t", trace)
    for _ in range(MANY):
        wrapped("uuid", (), {}, {})
        dossier = meter.deep.dossiers.get(KEY)
        if dossier is not None and done(dossier):
            break
    assert meter.guard.errors == 0
    return meter.deep.dossiers[KEY]


LEAKS = """
    class Cart:
        pass

    CARTS = {}

    def run():
        for _ in range(20):
            cart = Cart()
            cart.items = bytes(400)  # this is most of it
            CARTS[len(CARTS)] = cart
"""
