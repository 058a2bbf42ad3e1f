"""What is the application's, wherever it is installed."""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from celery import Celery

import celery_memory_exporter
from celery_memory_exporter.agent import application
from celery_memory_exporter.agent.application import (
    MAX_FILES,
    declare,
    is_application,
    is_own,
    packages_of,
)
from celery_memory_exporter.agent.heap.walk import Rank, rank_of

PACKAGE = Path(celery_memory_exporter.__file__).parent
INSTALLED = "/opt/venv/lib/python3.12/site-packages/"


@pytest.fixture(autouse=True)
def _undeclared() -> Iterator[None]:
    yield
    declare(frozenset())


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (__file__, True),
        ("/srv/shop/cache.py", True),
        ("shop/cache.py", True),
        (json.__file__, False),
        (os.__file__, False),
        (hypothesis.__file__, False),
        ("/usr/lib/python3/dist-packages/yaml/nodes.py", False),
        (application.__file__, False),
        (str(PACKAGE / "demo" / "shop.py"), True),
        ("<frozen importlib._bootstrap>", False),
        ("<string>", True),
        ("<stdin>", False),
    ],
)
def test_whose_a_file_is(filename: str, expected: bool) -> None:
    assert is_application(filename) is expected


@pytest.mark.parametrize("room", ["audit", "heap", "meter", "stats", "worker"])
def test_no_line_of_the_agents_is_the_applications(room: str) -> None:
    files = [str(file) for file in (PACKAGE / "agent" / room).rglob("*.py")]
    assert len(files) > 1
    assert [file for file in files if is_application(file) or not is_own(file)] == []


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (str(PACKAGE / "__init__.py"), True),
        (str(PACKAGE / "common" / "report.py"), True),
        (str(PACKAGE / "demo" / "shop.py"), False),
        (str(PACKAGE / "demonstration.py"), True),
        (str(PACKAGE) + "_plugin/tasks.py", False),
        (__file__, False),
        (json.__file__, False),
        ("<string>", False),
    ],
)
def test_what_is_this_packages_own(filename: str, expected: bool) -> None:
    assert is_own(filename) is expected


def test_answers_are_kept_within_bounds() -> None:
    for number in range(MAX_FILES + 10):
        is_application(f"<generated {number}>")
    assert is_application.cache_info().currsize == MAX_FILES


@pytest.mark.usefixtures("gone_directory")
def test_a_current_directory_that_is_gone_is_no_error() -> None:
    assert is_application("relative/gone.py") is True


# --- installed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("shop/tasks.py", True),
        ("shop/__init__.py", True),
        ("shop.py", True),
        ("shopping/tasks.py", False),
        ("acme/billing/tasks.py", True),
        ("acme/other/tasks.py", False),
        ("requests/sessions.py", False),
    ],
)
def test_files_of_declared_packages_are_the_applications(file: str, expected: bool) -> None:
    assert not is_application(INSTALLED + file)
    declare(frozenset({"shop", "acme.billing"}))
    assert is_application(INSTALLED + file) is expected
    module = types.SimpleNamespace(__file__=INSTALLED + file)
    assert rank_of("of_a_module", module) is (Rank.APPLICATION if expected else Rank.PACKAGE)


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed application: a package, a part of a namespace package, and a module."""
    names = ("shop", "shop.tasks", "acme.billing", "acme.billing.jobs", "single", "later")
    for name in names:
        module = types.ModuleType(name)
        module.__file__ = INSTALLED + name.replace(".", "/") + ".py"
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "acme", types.ModuleType("acme"))


def app_with(**conf: Any) -> Any:
    settings = {"include": (), "imports": (), **conf}
    return SimpleNamespace(tasks={}, conf=SimpleNamespace(**settings), main=None)


@pytest.mark.usefixtures("modules")
def test_the_packages_that_define_tasks_are_the_applications() -> None:
    app = Celery("nobody", set_as_current=False)
    for module in ("shop.tasks", "acme.billing.jobs", "celery_memory_exporter.demo.shop"):
        function = types.FunctionType((lambda: None).__code__, {"__name__": module}, "work")
        function.__module__ = module
        app.task(function, name=f"{module}.work", lazy=False)
    importlib.import_module("celery_memory_exporter.demo.shop")
    found = packages_of(app, []) - {"tests"}  # which may have shared tasks
    assert found == {"shop", "acme.billing", "celery_memory_exporter.demo"}


@pytest.mark.usefixtures("modules")
def test_what_settings_and_the_command_name_is_the_applications() -> None:
    include = ["shop.tasks", "celery_memory_exporter.autoload", "of.nobody"]
    assert packages_of(app_with(include=include), []) == {"shop"}
    assert packages_of(app_with(imports="acme.billing.jobs"), []) == {"acme.billing"}
    app = app_with()
    app.main = "single"
    assert packages_of(app, []) == {"single"}
    for arguments in (["-A", "later"], ["-Alater:app"], ["--app", "later"], ["--app=later"]):
        assert packages_of(app_with(), ["celery", *arguments, "worker"]) == {"later"}
    assert packages_of(app_with(), ["celery", "-A"], ("acme", "x.y")) == {"acme", "x.y"}
