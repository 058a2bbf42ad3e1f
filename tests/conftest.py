"""Shared by all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# These machines are shared: a slow example is no finding.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

#: Tests that need a program skip on a laptop without it, and fail where it has to be.
IN_CI = bool(os.environ.get("CI"))
