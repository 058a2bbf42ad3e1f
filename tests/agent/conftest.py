"""What several of the agent's tests need."""

from __future__ import annotations

import sys
import tempfile
import types
from collections.abc import Callable, Iterator
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


@pytest.fixture
def gone_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The current directory was removed under us."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    yield
    monkeypatch.chdir(tmp_path)
