"""The line of advice."""

from __future__ import annotations

import pytest

from celery_memory_exporter.diagnosis import advice, classes


def test_each_class_of_growth_has_its_advice() -> None:
    assert set(advice.LEAK) == {*classes.ORDER, "main"}


@pytest.mark.parametrize("growth_class", sorted(set(advice.NO_LEAK) - {"steady", "unsettled"}))
def test_what_looks_like_a_leak_and_is_none_is_called_that(growth_class: str) -> None:
    assert advice.NO_LEAK[growth_class].startswith("Not a leak: ")


def test_holder_line_and_outcome_are_named_where_they_are_known() -> None:
    bare = advice.for_leak("native", "", "", None)
    assert bare == advice.LEAK["native"]
    assert advice.for_leak("native", "shop.held", "shop.py:71", "failed") == (
        f"shop.held grows with each run. {bare} Made at shop.py:71. Only failing runs leave "
        "something behind: look at the error path."
    )
