"""What several of the agent's tests need."""

from __future__ import annotations

import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest


@pytest.fixture(autouse=True)
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A temporary directory of the test's own: an agent keeps its state there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


Define: TypeAlias = "Callable[..., types.ModuleType]"


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Define:
    """Makes a module ``shop`` from source text and values."""

    def make(source: str = "", name: str = "shop", **values: Any) -> types.ModuleType:
        module = types.ModuleType(name)
        exec(source, vars(module))
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return make
