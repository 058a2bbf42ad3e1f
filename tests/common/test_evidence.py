"""What a line leaves behind, by the audits that could tell."""

from __future__ import annotations

import pytest

from celery_memory_exporter.common.evidence import AGES, WARM_RUNS, Site
from tests import samples


@pytest.mark.parametrize(("figure", "per_run"), [("bytes", 25.0), ("descriptors", 20.0)])
def test_bytes_are_told_by_tracing_and_the_rest_by_watching(figure: str, per_run: float) -> None:
    evidence = samples.evidence(traced_audits=4, watched_audits=5)
    assert evidence.per_run(Site("shop.py:1", figure, 100.0)) == per_run


def test_a_line_without_an_audit_is_not_divided_by_zero() -> None:
    evidence = samples.evidence(traced_audits=0, watched_audits=0)
    assert evidence.per_run(Site("shop.py:1", "bytes", 100.0)) == 100.0


def test_start_up_ends_where_an_age_begins() -> None:
    assert WARM_RUNS in AGES
    assert list(AGES) == sorted(set(AGES))
