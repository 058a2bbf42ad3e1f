"""What a verdict says of itself."""

from __future__ import annotations

from celery_memory_exporter.common.evidence import Holder
from tests.diagnosis.evidence import suspect


def test_the_holder_is_the_first_container_else_the_first_path_else_nothing() -> None:
    held = (Holder("shop.first", "dict", 9, 9.0), Holder("shop.second", "list", 9, 1.0))
    paths = ("shop.path", "shop.other")
    assert suspect(holders=held, paths=paths).holder == "shop.first"
    assert suspect(paths=paths).holder == "shop.path"
    assert suspect().holder == ""
