"""Fixtures of the tests of audits."""

from __future__ import annotations

from tests.agent.audit.harness import heap_as_it_was

__all__ = ["heap_as_it_was"]
