"""What a line of source is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from celery_memory_exporter.agent.audit.sites import site_of


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


@pytest.mark.usefixtures("gone_directory")
def test_a_current_directory_that_is_gone_is_no_error() -> None:
    assert site_of("relative/gone.py", 1) == "relative/gone.py:1"
