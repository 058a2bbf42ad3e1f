"""Which files are the application's, and how their lines are called."""

from __future__ import annotations

import json
import os
from pathlib import Path

import hypothesis
import pytest

import celery_memory_exporter
from celery_memory_exporter.agent.audit import sites
from celery_memory_exporter.agent.audit.sites import MAX_FILES, is_application, is_own, site_of

PACKAGE = Path(celery_memory_exporter.__file__).parent


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
        (sites.__file__, False),
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


def test_a_site_is_relative_to_the_longest_entry_of_the_search_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.path", ["/srv", "/srv/app", "/"])
    assert site_of("/srv/app/shop/cache.py", 42) == "shop/cache.py:42"
    assert site_of("/srv/application/cache.py", 1) == "application/cache.py:1"


def test_an_empty_entry_is_the_current_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [""])
    assert site_of("pkg/sub/module.py", 7) == "pkg/sub/module.py:7"


def test_elsewhere_a_site_is_the_last_two_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    assert site_of("/home/somebody/secret/shop/cache.py", 42) == "shop/cache.py:42"
    assert site_of("/cache.py", 42) == "cache.py:42"
    assert site_of("<string>", 3) == "<string>:3"


def test_a_current_directory_that_is_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert is_application("relative/gone.py") is True
    assert site_of("relative/gone.py", 1) == "relative/gone.py:1"
    monkeypatch.chdir(tmp_path)
