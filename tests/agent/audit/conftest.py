"""Fixtures of the tests of audits."""

from __future__ import annotations

from tests.agent.audit.harness import heap_as_it_was
from tests.agent.audit.leaky import load
from tests.agent.audit.watching import no_other_tracer

__all__ = ["heap_as_it_was", "load", "no_other_tracer"]
