"""What several of the agent's tests need."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

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
