"""Fixtures of these tests."""

from __future__ import annotations

import json

import pytest

from tests.grafana.committed import DASHBOARDS, Json


@pytest.fixture(params=DASHBOARDS, ids=lambda path: path.stem)
def dashboard(request: pytest.FixtureRequest) -> Json:
    """Each committed one."""
    content: Json = json.loads(request.param.read_text())
    return content
